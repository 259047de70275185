"""A decoder with adapters gives what PEFT gives for the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.runtime.adapters.tiny_adapters import ALL, attach, save
from tests.unit.runtime.test_decoders import BLOCKS, PROMPT, family, theirs
from tests.unit.runtime.tiny_decoders import (
    make_decoder,
    packed_weights,
    ragged,
    rounded_model,
)

from tidegate_runtime.adapters.read import read_lora
from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.models.open import KINDS

Part = tuple[list[int], int, list[int]]


def targets_of(name: str) -> list[str]:
    others = {
        "Phi": ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"],
        "Phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
        "Mixtral": ["q_proj", "k_proj", "v_proj", "o_proj"],
    }
    return others.get(name, ALL)


def adapter_of(decoder: Decoder, adapted: Any, directory: Path) -> Adapter:
    lora = read_lora("a", save(adapted, directory), decoder.adaptable())
    return decoder.adapt(lora.digest, lora.updates)


def logits_of(decoder: Decoder, *parts: tuple[Part, Adapter | None]) -> torch.Tensor:
    batch = ragged(*(part for part, _ in parts))
    adapters = tuple(adapter for _, adapter in parts)
    return decoder.forward(replace(batch, adapters=adapters)).logits.clone()


@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Phi", "Phi3", "Mixtral"])
def test_in_float32_logits_are_those_of_the_merged_model(tmp_path: Path, name: str) -> None:
    model = family(name)
    decoder = make_decoder("torch", model.config, packed_weights(model, 32))
    adapted = attach(model, r=17, use_rslora=True, target_modules=targets_of(name))
    adapter = adapter_of(decoder, adapted, tmp_path)
    unmerged = theirs(adapted, PROMPT)
    found = logits_of(decoder, ((PROMPT, 0, BLOCKS), adapter))
    wanted = theirs(adapted.merge_and_unload(), PROMPT)
    assert torch.allclose(found, wanted, atol=2e-4)
    assert torch.allclose(unmerged, wanted, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "bits", "kind"),
    [
        *(("Llama", bits, kind) for bits in (16, 8) for kind in KINDS),
        *((name, 8, "native") for name in ("Llama 3", "Qwen2", "Qwen3", "Gemma2", "Phi3")),
        *(("Llama", 4, "native"), ("Gemma2", 8, "transformers"), ("Mixtral", 8, "transformers")),
    ],
)
def test_packed_logits_are_those_of_peft_over_the_same_rounding(
    tmp_path: Path, name: str, bits: int, kind: str
) -> None:
    model = family(name)
    weights = packed_weights(model, bits)
    decoder = make_decoder(kind, model.config, weights)
    adapted = attach(rounded_model(model, weights), target_modules=targets_of(name))
    adapter = adapter_of(decoder, adapted, tmp_path)
    found = logits_of(decoder, ((PROMPT, 0, BLOCKS), adapter))
    wanted = theirs(adapted, PROMPT)
    with adapted.disable_adapter():
        plain = theirs(adapted, PROMPT)
    # As without adapters: a wrong update moves logits by their own size.
    assert (found - wanted).abs().max() < 0.2 * wanted.std()
    assert (found - wanted).abs().median() < 0.02 * wanted.std()
    assert (plain - wanted).abs().max() > wanted.std()


@pytest.mark.parametrize("module", ALL)
def test_each_target_is_updated_alone(tmp_path: Path, module: str) -> None:
    model = family("Qwen3")
    weights = packed_weights(model, 16)
    decoder = make_decoder("native", model.config, weights)
    adapted = attach(
        rounded_model(model, weights), target_modules=[module], layers_to_transform=[1]
    )
    found = logits_of(decoder, ((PROMPT, 0, BLOCKS), adapter_of(decoder, adapted, tmp_path)))
    wanted = theirs(adapted, PROMPT)
    with adapted.disable_adapter():
        plain = theirs(adapted, PROMPT)
    assert (found - wanted).abs().max() < 0.1 * (plain - wanted).abs().max()


LAST = [*ALL, "lm_head"]
MINUTE = {"rank_pattern": {"^model.layers.1.self_attn.q_proj": 20, "layers.0.mlp.up_proj": 1}}


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True, **MINUTE},
        {"alpha_pattern": {"v.proj": 64, "^q_proj": 999, "o_proj": 1}},
        {"use_rslora": True, "alpha_pattern": {"layers.1.self_attn.v_proj": 3}, **MINUTE},
        {"exclude_modules": ["v_proj"], "layers_to_transform": [1]},
        {"target_modules": "all-linear"},
        {"target_modules": LAST},
        {"target_modules": ["lm_head"], "r": 33, "use_rslora": True},
        {"target_modules": LAST, "rank_pattern": {"lm_head": 9}, "alpha_pattern": {"lm_head": 3}},
    ],
)
def test_each_way_to_say_ranks_and_scales_is_that_of_the_merged_model(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    model = family("Llama 3")
    decoder = make_decoder("torch", model.config, packed_weights(model, 32))
    adapted = attach(model, **options)
    adapter = adapter_of(decoder, adapted, tmp_path)
    found = logits_of(decoder, ((PROMPT, 0, BLOCKS), adapter))
    with adapted.disable_adapter():
        plain = theirs(adapted, PROMPT)
    wanted = theirs(adapted.merge_and_unload(), PROMPT)
    assert torch.allclose(found, wanted, atol=5e-4)
    assert (plain - wanted).abs().max() > 0.1 * wanted.std()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("Llama", kind) for kind in KINDS),
        *(("Qwen3", kind) for kind in KINDS),
        ("Gemma2", "native"),
        ("Gemma2", "transformers"),
        ("Phi3", "native"),
    ],
)
def test_the_last_layer_is_updated_for_the_wanted_rows_of_its_sequences(
    tmp_path: Path, name: str, kind: str
) -> None:
    model = family(name)
    weights = packed_weights(model, 8)
    decoder = make_decoder(kind, model.config, weights)
    adapted = attach(rounded_model(model, weights), target_modules=["lm_head"], r=5)
    adapter = adapter_of(decoder, adapted, tmp_path)
    others = ((PROMPT[:21], 0, [42, 43]), None)
    batch = ragged(others[0], (PROMPT, 0, BLOCKS))
    few = np.array([3, 20, 21 + 4, 21 + 89], dtype=np.int32)
    batch = replace(batch, adapters=(None, adapter), wanted=few)
    found = decoder.forward(batch).logits.clone()
    wanted = theirs(adapted, PROMPT)[[4, 89]]
    with adapted.disable_adapter():
        plain = theirs(adapted, PROMPT)
    assert (found[2:] - wanted).abs().max() < 0.1 * (plain[[4, 89]] - wanted).abs().max()
    assert (found[:2] - plain[[3, 20]]).abs().max() < 0.1 * plain.std()


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_and_alphas_of_single_modules_are_honoured(tmp_path: Path, kind: str) -> None:
    model = family("Llama")
    weights = packed_weights(model, 16)
    decoder = make_decoder(kind, model.config, weights)
    adapted = attach(
        rounded_model(model, weights),
        rank_pattern={"q_proj": 20, "model.layers.1.mlp.up_proj": 1},
        alpha_pattern={"v_proj": 32},
    )
    found = logits_of(decoder, ((PROMPT, 0, BLOCKS), adapter_of(decoder, adapted, tmp_path)))
    wanted = theirs(adapted, PROMPT)
    assert (found - wanted).abs().max() < 0.15 * wanted.std()


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_compiled_logits_are_the_same_bits_beside_other_adapters(tmp_path: Path, bits: int) -> None:
    model = family("Llama 3")
    weights = packed_weights(model, bits)
    decoder = make_decoder("native", model.config, weights, "bf16")
    first = adapter_of(decoder, attach(model), tmp_path / "first")
    targets = ["q_proj", "down_proj", "lm_head"]
    second = attach(family("Llama 3"), seed=1, r=33, target_modules=targets)
    other = adapter_of(decoder, second, tmp_path / "other")
    parts: list[tuple[Part, Adapter | None]] = [
        ((PROMPT[:37], 0, [50, 51, 52]), first),
        ((PROMPT, 0, BLOCKS), None),
        ((PROMPT[::-1][:5], 0, [40]), other),
        ((PROMPT[:3], 0, [41]), first),
        ((PROMPT[:21], 0, [42, 43]), other),
    ]
    alone = torch.cat([logits_of(decoder, part) for part in parts])
    assert torch.equal(logits_of(decoder, *parts), alone)
    unadapted = decoder.forward(ragged(parts[1][0])).logits
    assert torch.equal(alone[37 : 37 + len(PROMPT)], unadapted)


@pytest.mark.parametrize("kind", ["torch", "transformers"])
def test_logits_layer_by_layer_are_those_of_each_sequence_alone(tmp_path: Path, kind: str) -> None:
    model = family("Qwen3")
    decoder = make_decoder(kind, model.config, packed_weights(model, 16))
    first = adapter_of(decoder, attach(model), tmp_path / "first")
    second = attach(family("Qwen3"), seed=1, r=9, target_modules=["o_proj", "up_proj"])
    other = adapter_of(decoder, second, tmp_path / "other")
    parts: list[tuple[Part, Adapter | None]] = [
        ((PROMPT[:37], 0, [50, 51, 52]), first),
        ((PROMPT, 0, BLOCKS), None),
        ((PROMPT[:21], 0, [42, 43]), other),
        ((PROMPT[:3], 0, [41]), first),
    ]
    alone = torch.cat([logits_of(decoder, part) for part in parts])
    assert torch.allclose(logits_of(decoder, *parts), alone, atol=1e-3)
    unadapted = decoder.forward(ragged(parts[1][0])).logits
    assert torch.allclose(alone[37 : 37 + len(PROMPT)], unadapted, atol=1e-3)
