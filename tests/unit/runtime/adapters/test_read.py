"""What is no adapter of this model is refused with a reason, before any of it is used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.runtime.adapters.tiny_adapters import ALL, attach, save
from tests.unit.runtime.test_decoders import family
from tests.unit.runtime.tiny_decoders import make_decoder, packed_weights, tiny_model

from tidegate_runtime.adapters.load import AdapterLoader
from tidegate_runtime.adapters.read import Lora
from tidegate_runtime.errors import ModelRefused

QUERY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
Tensors = dict[str, torch.Tensor]


def read(loader: AdapterLoader, directory: Path) -> Lora:
    return loader.read("mine", loader.fetch(str(directory)))


def configure(directory: Path, **fields: Any) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change(directory: Path, edit: Callable[[Tensors], object]) -> None:
    path = directory / "adapter_model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def refusal(loader: AdapterLoader, directory: Path) -> tuple[str, str]:
    with pytest.raises(ModelRefused) as caught:
        read(loader, directory)
    return caught.value.reason, caught.value.message


def test_an_adapter_says_its_rank_targets_and_digest(
    loader: AdapterLoader, save_adapter: Callable[..., Path]
) -> None:
    first, second = (save_adapter(name, target_modules=("v_proj", "q_proj")) for name in "ab")
    lora = read(loader, first)
    assert (lora.rank, lora.targets, len(lora.updates)) == (4, ("q_proj", "v_proj"), 4)
    assert lora.digest == read(loader, second).digest
    assert lora.digest != read(loader, save_adapter("c", seed=1)).digest


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"use_dora": True}, "use_dora True"),
        ({"bias": "all"}, "bias 'all'"),
        ({"lora_bias": True}, "lora_bias True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save ['lm_head']"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out True"),
        ({"layer_replication": [[0, 2]]}, "layer_replication [[0, 2]]"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices [1]"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters ['mlp.experts']"),
        (
            {"ensure_weight_tying": True, "target_modules": ["q_proj", "lm_head"]},
            "ensure_weight_tying True",
        ),
        ({"task_type": "SEQ_CLS"}, "task_type 'SEQ_CLS'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"rank_pattern": {"(a+)+$": 4}}, "rank_pattern '(a+)+$'"),
        ({"alpha_pattern": {"^a|b": 4}}, "alpha_pattern '^a|b'"),
        ({"layers_pattern": "blocks"}, "layers_pattern 'blocks'"),
        ({"r": 0}, "r 0"),
        ({"r": 100_000}, "r 100000"),
        ({"lora_alpha": "much"}, "lora_alpha 'much'"),
        ({"something_of_next_year": 3}, "something_of_next_year 3"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    loader: AdapterLoader, save_adapter: Callable[..., Path], fields: dict[str, Any], said: str
) -> None:
    directory = save_adapter("a")
    configure(directory, **fields)
    reason, message = refusal(loader, directory)
    assert reason == "UnsupportedAdapter"
    assert said in message


def test_tying_weights_means_nothing_where_no_tied_one_is_adapted(
    loader: AdapterLoader, save_adapter: Callable[..., Path]
) -> None:
    directory = save_adapter("a")
    configure(directory, ensure_weight_tying=True)
    assert read(loader, directory).updates


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"use_dora": True}, "use_dora True"),
        ({"bias": "lora_only"}, "bias 'lora_only'"),
        ({"lora_bias": True}, "lora_bias True"),
        ({"modules_to_save": ("lm_head",)}, "modules_to_save ['lm_head']"),
        ({"trainable_token_indices": (1, 2)}, "trainable_token_indices"),
        ({"target_modules": ("q_proj", "embed_tokens")}, "embed_tokens.lora_embedding_"),
    ],
)
def test_what_peft_saves_of_other_kinds_is_refused_by_name(
    loader: AdapterLoader, save_adapter: Callable[..., Path], options: dict[str, Any], said: str
) -> None:
    reason, message = refusal(loader, save_adapter("a", **options))
    assert reason == "UnsupportedAdapter"
    assert said in message


def test_an_adapter_with_a_copy_of_the_embeddings_says_how_to_save_it_without(
    loader: AdapterLoader, tmp_path: Path
) -> None:
    adapted = attach(tiny_model("Llama", tie_word_embeddings=True), target_modules=["lm_head"])
    with pytest.warns(UserWarning, match="save_embedding_layers"):
        adapted.save_pretrained(tmp_path / "a", save_embedding_layers="auto")
    reason, message = refusal(loader, tmp_path / "a")
    assert reason == "UnsupportedAdapter"
    assert "save_embedding_layers=False" in message
    assert read(loader, save(adapted, tmp_path / "b")).targets == ("lm_head",)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj"]},
            "target_parameters ['mlp.experts.gate_up_proj']",
        ),
        ({"target_modules": ["gate"]}, "target_parameters ['gate.weight']"),
    ],
)
def test_adapters_of_experts_and_of_what_chooses_them_are_refused_by_name(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    model = family("Mixtral")
    decoder = make_decoder("transformers", model.config, packed_weights(model, 8))
    directory = save(attach(model, **options), tmp_path / "a")
    assert said in refusal(AdapterLoader(decoder, tmp_path), directory)[1]


def _widen(tensors: Tensors) -> None:
    tensors[QUERY] = torch.cat([tensors[QUERY]] * 2, dim=1)


def _rename(tensors: Tensors) -> None:
    tensors[QUERY.replace("layers.0", "layers.7")] = tensors.pop(QUERY)


def _spoil(tensors: Tensors) -> None:
    tensors[QUERY][2, 5] = float("nan")


def _embed(tensors: Tensors) -> None:
    tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = torch.ones(4, 300)


def _head(tensors: Tensors) -> None:
    tensors["base_model.model.lm_head.lora_A.weight"] = torch.ones(4, 96)


@pytest.mark.parametrize(
    ("edit", "reason", "said"),
    [
        (_widen, "WrongAdapter", "the shape [4, 192], and this model"),
        (_rename, "WrongAdapter", "'model.layers.7.self_attn.q_proj'"),
        (_spoil, "BrokenAdapter", "holds values that are no numbers"),
        (_embed, "UnsupportedAdapter", "lora_embedding_A"),
        (_head, "BrokenAdapter", "has weights, unasked, for 'lm_head'"),
        (lambda tensors: tensors.pop(QUERY), "BrokenAdapter", f"lacks the tensor {QUERY!r}"),
        (lambda tensors: tensors.clear(), "BrokenAdapter", "has no weights"),
        (
            lambda tensors: tensors.update({QUERY: torch.ones(4, 96, dtype=torch.int32)}),
            "BrokenAdapter",
            "torch.int32",
        ),
    ],
)
def test_weights_of_another_model_or_none_at_all_are_refused(
    loader: AdapterLoader,
    save_adapter: Callable[..., Path],
    edit: Callable[[Tensors], object],
    reason: str,
    said: str,
) -> None:
    directory = save_adapter("a")
    change(directory, edit)
    found, message = refusal(loader, directory)
    assert found == reason
    assert said in message


def test_a_rank_that_is_not_that_of_the_weights_is_refused(
    loader: AdapterLoader, save_adapter: Callable[..., Path]
) -> None:
    directory = save_adapter("a")
    configure(directory, r=8)
    reason, message = refusal(loader, directory)
    assert reason == "WrongAdapter"
    assert "want [8, 96]" in message


def test_targets_without_weights_are_missed(
    loader: AdapterLoader, save_adapter: Callable[..., Path]
) -> None:
    directory = save_adapter("a", target_modules=("q_proj",))
    configure(directory, target_modules=["q_proj", "v_proj"])
    assert "lacks the weights of 'model.layers.0.self_attn.v_proj'" in refusal(loader, directory)[1]


def test_an_alpha_that_makes_weights_overflow_is_refused(
    loader: AdapterLoader, save_adapter: Callable[..., Path]
) -> None:
    directory = save_adapter("a")
    configure(directory, lora_alpha=1e60)
    assert "times alpha overflow" in refusal(loader, directory)[1]


@pytest.mark.parametrize("keep", [0, 7, 100, 5000])
def test_truncated_weights_are_refused(
    loader: AdapterLoader, save_adapter: Callable[..., Path], keep: int
) -> None:
    path = save_adapter("a") / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    reason, message = refusal(loader, path.parent)
    assert reason == "BrokenAdapter"
    assert "fetch it again" in message


def test_a_file_larger_than_any_adapter_is_not_read(
    loader: AdapterLoader, save_adapter: Callable[..., Path]
) -> None:
    path = save_adapter("a") / "adapter_model.safetensors"
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    assert str(1 << 40) in refusal(loader, path.parent)[1]


def test_pickled_weights_are_refused(
    loader: AdapterLoader, save_adapter: Callable[..., Path]
) -> None:
    directory = save_adapter("a")
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")
    assert refusal(loader, directory)[0] == "PickledWeights"


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_a_configuration_that_is_no_object_is_refused(
    loader: AdapterLoader, save_adapter: Callable[..., Path], text: str
) -> None:
    directory = save_adapter("a")
    (directory / "adapter_config.json").write_text(text)
    assert "is not" in refusal(loader, directory)[1]


@pytest.mark.parametrize("source", ["/nowhere/at/all", "ftp://host/adapter"])
def test_a_source_that_is_none_is_refused(loader: AdapterLoader, source: str) -> None:
    with pytest.raises(ModelRefused, match=r"use a directory|give one that PEFT saved"):
        loader.fetch(source)


def test_a_model_is_no_adapter(loader: AdapterLoader, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert refusal(loader, tmp_path)[0] == "NotAnAdapter"


def test_all_linear_leaves_the_last_layer_out(
    loader: AdapterLoader, save_adapter: Callable[..., Path]
) -> None:
    directory = save_adapter("a")
    configure(directory, target_modules="all-linear")
    assert "lm_head" in loader.decoder.adaptable()
    assert set(read(loader, directory).targets) == set(ALL)
