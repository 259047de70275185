"""Guesses that a model makes of itself change nothing but the number of its steps."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.runtime.engines import GREEDY, Steps, make_engine, tokens_of, wait_for_no_blocks
from tests.unit.runtime.fake_decoder import FakeDecoder
from tests.unit.runtime.tiny_decoders import make_decoder, packed_weights, tiny_model

from tidegate.local.heads_files import FORMAT, MANIFEST, WEIGHTS
from tidegate.spec import SpeculationSpec
from tidegate_runtime.distill.learner import OwnExit, new_learner
from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.sequence import SamplingParams, Sequence, SequenceId, SequenceRequest
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import Decoder, LayeredDecoder, StepBatch
from tidegate_runtime.speculation.base import Reach
from tidegate_runtime.speculation.early_exit import EarlyExitProposer
from tidegate_runtime.speculation.heads import (
    HeadsManifest,
    Method,
    write_heads,
)
from tidegate_runtime.speculation.open import open_self_speculation

LAYERS = 4
EXIT = 2
LEVELS = 3


@dataclass
class Tiny:
    """A random model whose later layers change little, so that its early ones guess well."""

    model: Any
    weights: Any

    @classmethod
    def make(cls, bits: int = 8) -> "Tiny":
        model = tiny_model("Llama", num_hidden_layers=LAYERS)
        for layer in model.model.layers[EXIT:]:
            layer.self_attn.o_proj.weight.data *= 0.03
            layer.mlp.down_proj.weight.data *= 0.03
        return cls(model, packed_weights(model, bits))

    def decoder(self, kind: str) -> Decoder:
        return make_decoder(kind, self.model.config, self.weights, threads=1)

    def own(self) -> OwnExit:
        model = self.model
        parts = (model.model.norm, model.lm_head, model.model.embed_tokens)
        norm, head, embedding = (part.weight.detach().float() for part in parts)
        return OwnExit(norm, model.config.rms_norm_eps, head, embedding)

    def heads(self, root: Path, method: Method, **changes: Any) -> Path:
        """Heads that have learnt nothing: those of an early exit are the model's own."""
        levels = 1 if method == "early_exit" else LEVELS
        tokens = torch.arange(300, dtype=torch.int32)
        learner = new_learner(method, self.own(), tokens, levels, seed=1)
        with torch.no_grad():
            for name, parameter in learner.named_parameters():
                if method == "hydra" and name == "mix":
                    parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
        manifest = HeadsManifest(
            format=FORMAT,
            method=method,
            exit_layer=EXIT if method == "early_exit" else None,
            levels=levels,
            hidden=96,
            vocabulary=300,
            shortlist=300,
            epsilon=1e-6,
            model="tiny",
            model_digest="",
            precision="int8",
            text="",
            trained_tokens=0,
            acceptance=[],
            untrained_acceptance=[],
        )
        root.mkdir()
        write_heads(root, manifest.model_copy(update=changes), learner.learnt().packed())
        return root


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return Tiny.make()


def spec_of(method: str, tiny: Tiny, root: Path) -> SpeculationSpec:
    if method == "early exit":
        return SpeculationSpec(method="early_exit", exit_layer=EXIT, max_tokens=4)
    heads = tiny.heads(root / "heads", method.replace(" with heads", "").replace(" ", "_"))
    name = "early_exit" if method.startswith("early") else method
    return SpeculationSpec.model_validate({"method": name, "heads": str(heads), "max_tokens": 4})


METHODS = ("early exit", "early exit with heads", "medusa", "hydra")
REQUESTS = [
    SequenceRequest((5,), 40, GREEDY),
    SequenceRequest(tuple(range(30)), 40, GREEDY),
    SequenceRequest((9, 8, 7) * 12, 30, SamplingParams(seed=3, temperature=0.8, top_p=0.9)),
    SequenceRequest((4, 4), 33, SamplingParams(seed=4, presence_penalty=0.5)),
]


async def run(
    decoder: Decoder, requests: list[SequenceRequest] = REQUESTS, **options: Any
) -> tuple[list[Any], Steps]:
    steps = Steps()
    engine = make_engine(decoder, blocks=64, observer=steps, **options)
    found = await asyncio.gather(*(tokens_of(engine, request) for request in requests))
    found.append(await tokens_of(engine, requests[-1]))  # whose prefix is in the cache by now
    await wait_for_no_blocks(engine)
    await asyncio.to_thread(engine.stop, "done")
    return found, steps


@pytest.mark.parametrize("kind", ["native", "transformers"])
@pytest.mark.parametrize("method", METHODS)
async def test_tokens_are_the_same_with_and_without(
    method: str, kind: str, tiny: Tiny, tmp_path: Path
) -> None:
    decoder = tiny.decoder(kind)
    expected, plain = await run(tiny.decoder(kind))
    asked = spec_of(method, tiny, tmp_path)
    found, steps = await run(
        decoder,
        eager=True,
        open_proposer=lambda blocks: open_self_speculation(asked, decoder, blocks, max_sequences=4),
    )
    assert found == expected
    assert steps.total.drafted_tokens > 0
    if method.startswith("early"):
        assert steps.total.accepted_tokens > 30
        assert len(steps.waits) < 0.9 * len(plain.waits)


class Onlooker:
    """Guesses an answer that it was told, every third time wrongly, and keeps what it is shown."""

    at_once = True

    def __init__(self, answer: list[int]) -> None:
        self.seen: list[tuple[list[int], torch.Tensor]] = []
        self._answer = answer
        self._shown: tuple[torch.Tensor, Mapping[Sequence, int]] = (torch.empty(0), {})

    def see(self, hidden: torch.Tensor, rows: Mapping[Sequence, int]) -> None:
        self._shown = (hidden, rows)

    def reach(self, sequence: Sequence) -> Reach:
        hidden, rows = self._shown
        self.seen.append((sequence.tokens.tolist(), hidden[rows[sequence]].clone()))
        return Reach(2)

    def propose(self, wanted: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        (sequence,) = wanted
        done = sequence.output_tokens
        right = self._answer[done : done + 2]
        return {sequence: [right[0], (right[1] + done % 3) % 300]}

    def forget(self, sequence: Sequence) -> None:
        pass


async def test_heads_are_shown_the_state_that_chose_the_last_token(tiny: Tiny) -> None:
    prompt = list(range(20))
    request = SequenceRequest(tuple(prompt), 30, GREEDY)
    answer = (await run(tiny.decoder("native"), requests=[request]))[0][0]
    decoder, onlooker = tiny.decoder("native"), Onlooker([*answer, 0, 0])
    assert isinstance(decoder, LayeredDecoder)
    decoder.watch()
    found, steps = await run(decoder, requests=[request], eager=True, proposer=onlooker)
    assert found[0] == answer
    assert 0 < steps.total.accepted_tokens < steps.total.drafted_tokens
    for tokens, state in onlooker.seen:
        alone = decoder.hidden(StepBatch.of_prompt(tokens[:-1]), LAYERS)
        assert torch.equal(alone[-1], state)


def early(
    guess: Callable[..., list[int]], blocks: BlockManager, **options: Any
) -> EarlyExitProposer:
    return EarlyExitProposer(guess, blocks, **{"spare_blocks": 0, **options})


def grown(blocks: BlockManager, length: int) -> Sequence:
    """A sequence that decodes: all but its last token computed."""
    sequence = Sequence.start(SequenceId(1), SequenceRequest(tuple(range(length)), 100))
    assert blocks.grow(sequence.blocks, length - 1)
    sequence.computed_tokens = length - 1
    return sequence


def test_drafts_lie_where_the_check_will_write_them() -> None:
    blocks, seen = BlockManager(8), []

    def guess(batch: Any) -> list[int]:
        seen.append((batch.tokens.tolist(), batch.positions.tolist(), batch.tables.tolist()))
        return [50 + len(seen)]

    sequence = grown(blocks, 16)
    assert early(guess, blocks).propose({sequence: 3}) == {sequence: [51, 52, 53]}
    first, second = sequence.blocks.ids[:2].tolist()
    table = [[first, second]]
    assert seen == [([15], [15], table), ([51], [16], table), ([52], [17], table)]


def test_a_guess_takes_no_block_that_others_may_need() -> None:
    blocks = BlockManager(4)
    sequence = grown(blocks, 31)
    proposer = early(lambda batch: [1], blocks, spare_blocks=2)
    # Two blocks are free: the last token goes to place 30, one guess after it to place 31.
    assert proposer.reach(sequence).tokens == 2
    assert early(lambda batch: [1], blocks, spare_blocks=1).reach(sequence).tokens == 15
    assert early(lambda batch: [1], blocks, max_tokens=1).reach(sequence).tokens == 1


# --- what is refused ------------------------------------------------------------------------------


def refused(asked: SpeculationSpec, decoder: Decoder) -> ModelRefused:
    with pytest.raises(ModelRefused) as caught:
        open_self_speculation(asked, decoder, BlockManager(8), max_sequences=4)
    return caught.value


@pytest.mark.parametrize("layer", [LAYERS, 99])
def test_an_exit_after_the_last_layer_is_refused(tiny: Tiny, layer: int) -> None:
    asked = SpeculationSpec(method="early_exit", exit_layer=layer)
    error = refused(asked, tiny.decoder("native"))
    assert error.reason == "BadExitLayer"
    assert f"exit_layer {layer} is not within 1..3" in error.message


def test_a_decoder_that_cannot_be_looked_into_refuses_the_method_by_name() -> None:
    error = refused(SpeculationSpec(method="early_exit", exit_layer=1), FakeDecoder())
    assert error.reason == "UnsupportedSpeculation"
    assert "'early_exit' looks into the model, which FakeDecoder does not allow" in error.message


def test_heads_for_another_vocabulary_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    root = tiny.heads(tmp_path / "heads", "medusa", vocabulary=301)
    error = refused(SpeculationSpec(method="medusa", heads=str(root)), tiny.decoder("native"))
    assert error.reason == "WrongHeads"
    assert "with the vocabulary 301, and here it is 300" in error.message


def test_heads_for_another_hidden_size_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    root = tiny.heads(tmp_path / "heads", "medusa")
    other = OwnExit(torch.ones(64), 1e-6, torch.zeros(300, 64), torch.zeros(300, 64))
    learner = new_learner("medusa", other, torch.arange(300).int(), LEVELS, seed=1)
    manifest = HeadsManifest.model_validate_json((root / MANIFEST).read_bytes())
    write_heads(root, manifest.model_copy(update={"hidden": 64}), learner.learnt().packed())
    error = refused(SpeculationSpec(method="medusa", heads=str(root)), tiny.decoder("native"))
    assert "made for 'tiny' with the hidden size 64, and here it is 96" in error.message
    assert "tidegate distill" in error.message


def test_heads_of_another_method_or_layer_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    root = str(tiny.heads(tmp_path / "heads", "early_exit"))
    decoder = tiny.decoder("native")
    error = refused(SpeculationSpec(method="hydra", heads=root), decoder)
    assert "with the method early_exit, and here it is hydra" in error.message
    error = refused(SpeculationSpec(method="early_exit", heads=root, exit_layer=3), decoder)
    assert "with the exit layer 2, and here it is 3" in error.message


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        (WEIGHTS, _truncate, "not those it was made of"),
        (WEIGHTS, _flip, "not those it was made of"),
        (WEIGHTS, Path.unlink, "No such file"),
        (MANIFEST, Path.unlink, "No such file"),
        (MANIFEST, _truncate, "heads.json' is damaged"),
    ],
)
def test_damaged_heads_are_refused_by_file_name(
    tiny: Tiny, tmp_path: Path, name: str, harm: Callable[[Path], Any], said: str
) -> None:
    root = tiny.heads(tmp_path / "heads", "hydra")
    harm(root / name)
    error = refused(SpeculationSpec(method="hydra", heads=str(root)), tiny.decoder("native"))
    assert error.reason == "DamagedHeads"
    assert name in error.message
    assert said in error.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"levels": 2}, "block.bias has the shape (288,), and (192,) was expected"),
        ({"shortlist": 299}, "tokens has the shape (300,), and (299,) was expected"),
        ({"vocabulary": 200}, "tokens beyond the vocabulary of 200"),
        ({"format": 2}, "its format is 2, and 1 is read"),
        ({"hidden": 100}, "hidden: Input should be a multiple of 32"),
        ({"exit_layer": "last"}, "exit_layer: Input should be a valid integer"),
    ],
)
def test_heads_whose_parts_disagree_are_refused(
    tiny: Tiny, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    root = tiny.heads(tmp_path / "heads", "medusa")
    manifest = json.loads((root / MANIFEST).read_bytes())
    (root / MANIFEST).write_text(json.dumps({**manifest, **change}))
    error = refused(SpeculationSpec(method="medusa", heads=str(root)), tiny.decoder("native"))
    assert error.reason == "DamagedHeads"
    assert said in error.message
