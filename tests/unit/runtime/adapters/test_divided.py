"""A model divided over two processes says with an adapter what it says in one."""

from __future__ import annotations

import resource
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.unit.runtime.adapters.test_exact import Part, adapter_of, logits_of
from tests.unit.runtime.adapters.tiny_adapters import ALL, attach, merged, save
from tests.unit.runtime.test_decoders import theirs
from tests.unit.runtime.test_parallel import BLOCKS, FAMILIES, PROMPT, divided, family
from tests.unit.runtime.tiny_decoders import (
    make_decoder,
    packed_weights,
    ragged,
    write_artifact,
)

from tidegate.spec import Precision
from tidegate_controlplane.domain.adapters import INWARD, adapter_bytes
from tidegate_controlplane.models.adapters import read_updates
from tidegate_runtime.adapters.read import Lora, read_lora
from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.errors import ReplicaUnavailable
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.ops.low_rank import LowRank
from tidegate_runtime.parallel.adapters import RankAdapters, handed_over
from tidegate_runtime.parallel.decoder import DividedDecoder
from tidegate_runtime.parallel.division import divide
from tidegate_runtime.parallel.orders import (
    AdaptedBatch,
    DropAdapter,
    TakeAdapter,
    Taken,
    Unavailable,
)
from tidegate_runtime.server.ranks import Ranks

LAST = [*ALL, "lm_head"]
WHOLE: Part = (PROMPT, 0, BLOCKS)


def lora_of(decoder: Decoder, directory: Path, seed: int = 0, **options: Any) -> Lora:
    saved = save(attach(family("Llama"), seed, **options), directory)
    return read_lora("a", saved, decoder.adaptable())


@pytest.fixture
def both(ranks: Ranks, tmp_path: Path) -> tuple[DividedDecoder, Decoder]:
    """The same model in float32, divided and whole."""
    model = family("Llama")
    weights = packed_weights(model, 32)
    over_two = divided(ranks, write_artifact(tmp_path / "model", model, weights), 300)
    assert isinstance(over_two, DividedDecoder)
    return over_two, make_decoder("transformers", model.config, weights)


@pytest.mark.parametrize("name", FAMILIES)
def test_in_float32_logits_are_those_of_the_merged_model(
    ranks: Ranks, tmp_path: Path, name: str
) -> None:
    model = family(name)
    root = write_artifact(tmp_path / "model", model, packed_weights(model, 32))
    plain = theirs(model, PROMPT)
    decoder = divided(ranks, root, 300)
    # Merged into a weight that is tied, an update of the last layer changes the embeddings too.
    targets = ALL if model.config.tie_word_embeddings else LAST
    saved = save(attach(model, r=5, use_rslora=True, target_modules=targets), tmp_path / "a")
    lora = read_lora("a", saved, decoder.adaptable())
    found = logits_of(decoder, (WHOLE, decoder.adapt(lora.digest, lora.updates)))
    wanted = theirs(merged(family(name), saved), PROMPT)
    assert torch.allclose(found, wanted, atol=1e-3)
    assert (plain - wanted).abs().max() > wanted.std()


@pytest.mark.parametrize("kind", ["transformers", "torch"])
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_packed_logits_are_those_of_one_process(
    ranks: Ranks, tmp_path: Path, bits: int, kind: str
) -> None:
    model = family("Qwen3")
    weights = packed_weights(model, bits)
    over_two = divided(ranks, write_artifact(tmp_path / "model", model, weights), 300, kind)
    alone = make_decoder(kind, model.config, weights)
    adapted = attach(model, target_modules=LAST)
    found, wanted = (
        logits_of(each, (WHOLE, adapter_of(each, adapted, tmp_path / "a")))
        for each in (over_two, alone)
    )
    assert (found - wanted).abs().max() < 0.1 * float(wanted.std())
    assert (logits_of(alone, (WHOLE, None)) - wanted).abs().max() > wanted.std()


@pytest.mark.parametrize("module", LAST)
def test_each_target_is_updated_alone(
    both: tuple[DividedDecoder, Decoder], tmp_path: Path, module: str
) -> None:
    lora = lora_of(both[0], tmp_path / "a", r=5, target_modules=[module])
    found, wanted = (
        logits_of(each, (WHOLE, each.adapt(lora.digest, lora.updates))) for each in both
    )
    plain = logits_of(both[1], (WHOLE, None))
    assert (found - wanted).abs().max() < 0.01 * (plain - wanted).abs().max()


def test_what_adapters_may_change_are_the_linears_of_the_whole_model(
    both: tuple[DividedDecoder, Decoder],
) -> None:
    assert both[0].adaptable() == both[1].adaptable()


def test_sequences_with_several_adapters_and_none_are_as_if_each_were_alone(
    both: tuple[DividedDecoder, Decoder], tmp_path: Path
) -> None:
    loras = [
        lora_of(both[0], tmp_path / "first", target_modules=LAST),
        lora_of(both[0], tmp_path / "other", seed=1, r=9, target_modules=["o_proj", "lm_head"]),
    ]

    def parts(decoder: Decoder) -> list[tuple[Part, Adapter | None]]:
        first, other = (decoder.adapt(lora.digest, lora.updates) for lora in loras)
        return [
            ((PROMPT[:37], 0, [50, 51, 52]), first),
            (WHOLE, None),
            ((PROMPT[:21], 0, [42, 43]), other),
            ((PROMPT[:3], 0, [41]), first),
        ]

    over_two, alone = both
    wanted = torch.cat([logits_of(alone, part) for part in parts(alone)])
    mixed = parts(over_two)
    assert torch.allclose(logits_of(over_two, *mixed), wanted, atol=1e-3)
    few = np.array([3, 36, 37 + 89, 37 + 90 + 20], dtype=np.int32)
    batch = ragged(*(part for part, _ in mixed))
    batch = replace(batch, adapters=tuple(adapter for _, adapter in mixed), wanted=few)
    assert torch.allclose(over_two.forward(batch).logits, wanted[few], atol=1e-3)
    # And the next step, over keys and values that adapters have made.
    step = ragged(([5], 37, [50, 51, 52]))
    found, again = (
        each.forward(replace(step, adapters=(each.adapt(loras[0].digest, loras[0].updates),)))
        for each in both
    )
    assert torch.allclose(found.logits, again.logits, atol=1e-3)


@pytest.mark.parametrize(
    "module", ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
)
def test_a_part_keeps_nothing_of_the_whole_in_memory(module: str) -> None:
    model = family("Llama")
    cut = divide(model.config, packed_weights(model, 32), 1, 2).cut
    outputs, inputs = model.get_submodule(module).weight.shape
    part = cut.update(module, LowRank(torch.randn(4, inputs), torch.randn(outputs, 4)))
    assert all(each.untyped_storage().nbytes() == each.nbytes for each in (part.down, part.up))


@pytest.mark.parametrize(
    ("bits", "precision"), [(32, Precision.FP32), (8, Precision.INT8), (16, Precision.BF16)]
)
def test_planned_bytes_are_those_that_all_ranks_have(
    ranks: Ranks, tmp_path: Path, bits: int, precision: Precision
) -> None:
    model = family("Qwen2")
    root = write_artifact(tmp_path / "model", model, packed_weights(model, bits))
    decoder = divided(ranks, root, 300)
    adapter = adapter_of(decoder, attach(model, r=3, target_modules=LAST), tmp_path / "a")
    updates = read_updates(str(tmp_path / "a"))
    planned = adapter_bytes(updates, precision, on_gpu=False, devices=2)
    assert planned == adapter.weights_bytes


@pytest.mark.parametrize(
    "family_name",
    ["Llama", "Qwen2", "Qwen3", "Mistral", "Gemma", "Phi", "Granite", "Starcoder2", "GPTNeoX"],
)
def test_a_plan_knows_which_linears_are_divided_by_their_inputs(family_name: str) -> None:
    plan = getattr(transformers, f"{family_name}Config").base_model_tp_plan
    styles = {place.rpartition(".")[2]: style for place, style in plan.items()}
    inward = {linear for linear, style in styles.items() if style == "rowwise"}
    assert inward
    assert inward == INWARD & styles.keys()


@dataclass
class Told:
    """The other ranks, and what they are told; `lost` lets the next file vanish on its way."""

    ranks: Ranks
    lost: bool = False
    orders: list[object] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.ranks.size

    def tell(self, order: object) -> None:
        self.orders.append(order)
        self.ranks.tell(order)

    def ask(self, order: object) -> list[object]:
        self.orders.append(order)
        if isinstance(order, TakeAdapter) and self.lost:
            order.updates.unlink()
        return self.ranks.ask(order)

    def dropped(self) -> list[int]:
        return [order.number for order in self.orders if isinstance(order, DropAdapter)]


@pytest.fixture
def told(ranks: Ranks) -> Told:
    return Told(ranks)


def divided_by(told: Told, both: tuple[DividedDecoder, Decoder]) -> DividedDecoder:
    """The divided decoder of a test with another way to its ranks."""
    return DividedDecoder(both[0]._own, told, 300)


def test_a_rank_that_cannot_take_its_part_leaves_the_adapter_with_none(
    told: Told, both: tuple[DividedDecoder, Decoder], tmp_path: Path
) -> None:
    decoder = divided_by(told, both)
    lora = lora_of(decoder, tmp_path / "a")
    told.lost = True
    with pytest.raises(ReplicaUnavailable, match="a rank cannot take its part") as refused:
        decoder.adapt(lora.digest, lora.updates)
    assert refused.value.reason == "AdapterNotTaken"
    assert told.dropped() == [0]
    told.lost = False
    adapter = decoder.adapt(lora.digest, lora.updates)
    found = logits_of(decoder, (WHOLE, adapter))
    wanted = logits_of(both[1], (WHOLE, both[1].adapt(lora.digest, lora.updates)))
    assert torch.allclose(found, wanted, atol=1e-3)


def test_what_nobody_refers_to_is_dropped_before_the_next_step_and_nothing_else(
    told: Told, both: tuple[DividedDecoder, Decoder], tmp_path: Path
) -> None:
    decoder = divided_by(told, both)
    lora = lora_of(decoder, tmp_path / "a")
    once = decoder.adapt(lora.digest, lora.updates)
    again = decoder.adapt(lora.digest, lora.updates)
    before = logits_of(decoder, (WHOLE, once))
    del once
    assert told.dropped() == []
    assert torch.equal(logits_of(decoder, (WHOLE, again)), before)
    assert told.dropped() == [0]
    assert isinstance(told.orders[-1], AdaptedBatch)
    assert told.orders[-1].numbers == (1,)


def test_a_step_without_adapters_tells_what_it_told_before(
    told: Told, both: tuple[DividedDecoder, Decoder], tmp_path: Path
) -> None:
    decoder = divided_by(told, both)
    lora = lora_of(decoder, tmp_path / "a")
    _adapter = decoder.adapt(lora.digest, lora.updates)
    batch = ragged(WHOLE)
    decoder.forward(batch)
    assert told.orders[-1] is batch


class _Refusing:
    """A rank without memory: a decoder that takes no adapter."""

    def adapt(self, adapter_id: str, updates: Mapping[str, LowRank]) -> Adapter:
        raise MemoryError(f"{adapter_id} has {len(updates)} updates")


@pytest.mark.parametrize("works", [True, False])
def test_a_rank_answers_in_any_case_and_forgets_what_it_is_told_to(
    both: tuple[DividedDecoder, Decoder], tmp_path: Path, works: bool
) -> None:
    answers: list[object] = []
    come = threading.Event()

    def answer(given: object) -> None:
        answers.append(given)
        come.set()

    decoder: Any = both[1] if works else _Refusing()
    adapters = RankAdapters(decoder, answer)
    lora = lora_of(both[1], tmp_path / "a")
    step = AdaptedBatch(ragged(WHOLE), (7,))
    with handed_over(lora.updates) as file:
        adapters.take(TakeAdapter(7, lora.digest, file))
        assert come.wait(60)
    if not works:
        (refusal,) = answers
        assert isinstance(refusal, Unavailable)
        assert "MemoryError" in refusal.message
        adapters.drop(7)
        return
    size = sum(update.down.nbytes + update.up.nbytes for update in lora.updates.values())
    assert answers == [Taken(size)]
    (adapter,) = adapters.batch(step).adapters
    assert adapter is not None
    assert adapter.id == lora.digest
    adapters.drop(7)
    with pytest.raises(KeyError):
        adapters.batch(step)


def test_an_adapter_that_has_no_room_on_its_way_can_be_asked_for_again() -> None:
    update = LowRank(torch.ones(4, 1024), torch.ones(1024, 4))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with (
            pytest.raises(ReplicaUnavailable, match="make room there") as refused,
            handed_over({"q_proj": update}),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused.value.reason == "NoRoom"
