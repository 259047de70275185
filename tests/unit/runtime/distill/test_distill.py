"""From what a model says to heads that guess it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.runtime.tiny_decoders import make_decoder, packed_weights, tiny_model

from tidegate.local.heads_files import FORMAT
from tidegate.protocol.replica import EXIT_REFUSED
from tidegate_runtime.distill.__main__ import main
from tidegate_runtime.distill.examples import UNKNOWN, Examples, shortlist_of
from tidegate_runtime.distill.learner import OwnExit, new_learner
from tidegate_runtime.distill.listen import listen, prompts_of
from tidegate_runtime.distill.report import acceptance
from tidegate_runtime.distill.traces import (
    PROMPT_TOKENS,
    SAID_TOKENS,
    STREAMS,
    TRACE_BLOCKS,
    Tracer,
    Traces,
)
from tidegate_runtime.distill.train import Training, train
from tidegate_runtime.distill.workplace import Workplace
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import LayeredDecoder
from tidegate_runtime.speculation.guess import place_heads
from tidegate_runtime.speculation.heads import HeadsManifest, Method

HIDDEN = 96
WORDS = 300
ORDER = Training(epochs=1, rows=32, rate=3e-3, checkpoint_batches=3)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("Llama", num_hidden_layers=2)


@pytest.fixture(scope="module")
def decoder(model: Any) -> LayeredDecoder:
    made = make_decoder("native", model.config, packed_weights(model, 8), threads=1)
    made.allocate(TRACE_BLOCKS)
    assert isinstance(made, LayeredDecoder)
    return made


@pytest.fixture(scope="module")
def traces(decoder: LayeredDecoder) -> Traces:
    return Tracer(decoder, None).trace(prompts(), seed=1)


def prompts() -> np.ndarray:
    chance = np.random.default_rng(3)
    return chance.integers(0, WORDS, (STREAMS, PROMPT_TOKENS), dtype=np.int32)


def own_of(model: Any) -> OwnExit:
    parts = (model.model.norm, model.lm_head, model.model.embed_tokens)
    norm, head, embedding = (part.weight.detach().float() for part in parts)
    return OwnExit(norm, 1e-6, head, embedding)


def test_a_trace_is_what_the_model_says_with_the_state_that_said_it(
    decoder: LayeredDecoder, traces: Traces, model: Any
) -> None:
    assert traces.tokens.shape == traces.best.shape == (STREAMS, SAID_TOKENS)
    assert torch.equal(traces.tokens[::2, 1:], traces.best[::2, :-1])
    assert not torch.equal(traces.tokens[1::2, 1:], traces.best[1::2, :-1])
    assert torch.equal(traces.tokens[:, 0], torch.from_numpy(prompts()[:, -1]))
    own = own_of(model)
    state = torch.nn.functional.rms_norm(traces.hidden.float(), (HIDDEN,), own.norm, own.epsilon)
    agreed = ((state @ own.head.T).argmax(-1) == traces.best).float().mean()
    assert agreed > 0.8  # the rest are near ties, that rounding decides


def test_equal_seeds_give_equal_traces(decoder: LayeredDecoder, traces: Traces) -> None:
    again = Tracer(decoder, None).trace(prompts(), seed=1)
    assert torch.equal(again.tokens, traces.tokens)
    assert torch.equal(again.hidden, traces.hidden)


def test_an_early_layer_is_listened_to_without_changing_what_is_said(
    decoder: LayeredDecoder, traces: Traces
) -> None:
    early = Tracer(decoder, 1).trace(prompts(), seed=1)
    assert torch.equal(early.best, traces.best)
    assert not torch.equal(early.hidden, traces.hidden)


def test_examples_tell_the_tokens_ahead_of_each_state() -> None:
    said = torch.arange(10).reshape(1, 10).int()
    traces = Traces(said, said + 100, torch.arange(10.0).reshape(1, 10, 1))
    ahead = Examples.of(traces, levels=2, first=1)
    assert ahead.hidden[:2].flatten().tolist() == [0, 1]
    assert ahead.tokens[:2].tolist() == [[1, 2], [2, 3]]
    assert ahead.labels[:2].tolist() == [[101, 102], [102, 103]]
    assert len(ahead.hidden) == 8
    here = Examples.of(traces, levels=1, first=0)
    assert (here.labels[0].item(), len(here.hidden)) == (100, 10)
    known = ahead.known(torch.tensor([102, 101]), 200)
    assert known.labels[:3].tolist() == [[1, 0], [0, UNKNOWN], [UNKNOWN, UNKNOWN]]


def test_the_shortlist_is_what_was_said_most_then_the_text_then_the_first() -> None:
    best = torch.tensor([[7, 7, 3, 7, 3, 9]], dtype=torch.int32)
    traces = Traces(best, best, torch.zeros(1, 6, 1))
    assert shortlist_of(traces, [5, 5, 8], 20, 2).tolist() == [3, 7]
    assert shortlist_of(traces, [5, 5, 8], 20, 6).tolist() == [0, 3, 5, 7, 8, 9]


@pytest.mark.parametrize(("method", "gain"), [("medusa", 0.02), ("hydra", 0.1)])
def test_heads_learn_what_the_model_says(
    method: Method, gain: float, model: Any, decoder: LayeredDecoder, traces: Traces, tmp_path: Path
) -> None:
    own, tokens = own_of(model), torch.arange(WORDS).int()
    learner = new_learner(method, own, tokens, levels=2, seed=0)
    examples = Examples.of(traces, levels=2, first=1)
    losses: list[float] = []
    order = dataclasses.replace(ORDER, epochs=3, checkpoint_batches=10**6)
    train(learner, examples, order, tmp_path / "checkpoint", lambda *told: losses.append(told[2]))
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    manifest = HeadsManifest(
        format=FORMAT,
        method=method,
        exit_layer=None,
        levels=2,
        hidden=HIDDEN,
        vocabulary=WORDS,
        shortlist=WORDS,
        epsilon=1e-6,
        model="tiny",
        model_digest="",
        precision="int8",
        text="",
        trained_tokens=0,
        acceptance=[],
        untrained_acceptance=[],
    )
    greedy = Examples.of(traces.greedy, levels=2, first=1)
    fresh = new_learner(method, own, tokens, levels=2, seed=0)
    before, after = (
        acceptance(place_heads(manifest, each.learnt().packed(), decoder), greedy)
        for each in (fresh, learner)
    )
    assert after[0] > before[0] + gain
    assert after[0] >= after[1]


def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    model: Any, traces: Traces, tmp_path: Path
) -> None:
    examples = Examples.of(traces, levels=2, first=1)

    def learner() -> Any:
        return new_learner("hydra", own_of(model), torch.arange(WORDS).int(), 2, seed=0)

    class Stopped(Exception):
        pass

    def stop(done: int, total: int, loss: float) -> None:
        if done == 5:
            raise Stopped

    def small(whole: Examples) -> Examples:
        return Examples(whole.hidden[:320], whole.tokens[:320], whole.labels[:320])

    one, other = learner(), learner()
    train(one, small(examples), ORDER, tmp_path / "one", lambda *told: None)
    with pytest.raises(Stopped):
        train(other, small(examples), ORDER, tmp_path / "other", stop)
    resumed, told = learner(), []
    train(resumed, small(examples), ORDER, tmp_path / "other", lambda *each: told.append(each[0]))
    assert told == [4, 5, 6, 7, 8, 9, 10]
    for name, parameter in resumed.state_dict().items():
        assert torch.equal(parameter, one.state_dict()[name]), name


def test_continuations_that_are_there_are_not_made_again(
    decoder: LayeredDecoder, traces: Traces, tmp_path: Path
) -> None:
    asked: list[int] = []

    class Told:
        def trace(self, prompts: np.ndarray, seed: int) -> Traces:
            asked.append(seed)
            return traces

    work = Workplace.open(tmp_path / "heads", {"method": "hydra"})
    text = [token % WORDS for token in range(3 * STREAMS * PROMPT_TOKENS)]
    made = prompts_of(text, 10**6, seed=0)
    traces.save(work.traces(1))
    heard = listen(Told(), made, work, lambda done, total: None)  # type: ignore[arg-type]
    assert asked == [0, 2]
    assert len(heard.held_out.best) == STREAMS
    assert len(heard.learnt.best) == 2 * STREAMS


def test_prompts_come_from_all_over_a_text_and_never_overlap() -> None:
    text = list(range(5000))
    made = prompts_of(text, SAID_TOKENS * STREAMS * 3, seed=1)
    assert made.shape == (3 * STREAMS, PROMPT_TOKENS)
    assert len(set(made.flatten().tolist())) == made.size
    assert made.max() > 4900
    with pytest.raises(ModelRefused, match="the text has 100 tokens, and 1536 are needed"):
        prompts_of(text[:100], 1, seed=1)


def test_a_work_goes_on_with_the_same_order_only(tmp_path: Path) -> None:
    output = tmp_path / "heads"
    work = Workplace.open(output, {"method": "hydra", "levels": 3})
    work.checkpoint.touch()
    assert Workplace.open(output, {"method": "hydra", "levels": 3}) == work
    with pytest.raises(ModelRefused, match="was begun with levels 3, and 4 is asked for"):
        Workplace.open(output, {"method": "hydra", "levels": 4})
    work.close()
    output.mkdir()
    with pytest.raises(ModelRefused, match="is there already"):
        Workplace.open(output, {})


def test_an_order_of_which_nothing_was_done_binds_nobody(tmp_path: Path) -> None:
    output = tmp_path / "heads"
    Workplace.open(output, {"text": "empty.txt"})
    work = Workplace.open(output, {"text": "long.txt"})
    work.checkpoint.touch()
    with pytest.raises(ModelRefused, match=r"begun with text 'long.txt'"):
        Workplace.open(output, {"text": "empty.txt"})


@pytest.mark.parametrize(
    "options", [["--method", "medusa", "--exit-layer", "2"], ["--method", "early-exit"]]
)
def test_an_exit_layer_belongs_to_an_early_exit(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = ["--text", str(tmp_path / "text"), "--output", str(tmp_path / "heads")]
    assert main([str(tmp_path), *paths, *options, "--json"]) == EXIT_REFUSED
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "BadExitLayer"
