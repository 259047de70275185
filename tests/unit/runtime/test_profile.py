"""Recording a running engine: a trace that nests, a summary that adds up, otherwise nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import threading
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from tests.unit.runtime.engines import GREEDY, make_engine, tokens_of
from tests.unit.runtime.fake_decoder import FakeDecoder
from tests.unit.runtime.tiny_decoders import make_decoder, packed_weights, tiny_model

from tidegate.protocol.profile import ProfileRequest, ProfileSummary
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.sequence import SequenceRequest
from tidegate_runtime.errors import EngineDead, RequestRefused
from tidegate_runtime.profiling import recorder as recorders
from tidegate_runtime.profiling.operators import TorchOperators
from tidegate_runtime.profiling.phases import UNWATCHED, Phase, Phases
from tidegate_runtime.profiling.recorder import OPERATOR_STEPS, Recorder
from tidegate_runtime.profiling.stray_lines import stray_lines_logged
from tidegate_runtime.profiling.summary import summarize
from tidegate_runtime.profiling.trace import gzipped_trace
from tidegate_runtime.server.profiler import Profiler

SOME = ProfileRequest(seconds=0.1)
PROMPT = SequenceRequest((1, 2, 3), 40, sampling=GREEDY)


class NoOperators:
    """Counts how often it is started and stopped."""

    def __init__(self) -> None:
        self.turned = 0

    def start(self) -> None:
        self.turned += 1

    def stop(self) -> None:
        self.turned += 1

    def events(self, origin_ns: int) -> list[dict[str, Any]]:
        return []


class Ticks:
    """A clock that a test sets, in nanoseconds."""

    now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = make_engine(FakeDecoder())
    yield engine
    engine.stop("the test is over")


def played(steps: int) -> tuple[Recorder, NoOperators]:
    """A recorder that saw steps of 1 ns of scheduling, 7 of forward and 2 of emitting."""
    clock, operators = Ticks(), NoOperators()
    recorder = Recorder(operators, clock)
    recorder.begin()
    for _ in range(steps):
        for phase, ns in ((Phase.SCHEDULING, 1), (Phase.FORWARD, 7), (Phase.EMITTING, 2)):
            recorder.enter(phase)
            clock.now += ns
            if phase is Phase.FORWARD:
                recorder.run({"a": 1, "b": 5})
        recorder.enter(Phase.INTAKE)
    recorder.end()
    return recorder, operators


def told(steps: int) -> ProfileSummary:
    return summarize(played(steps)[0].recording(), "rep_1")


def spans(trace: dict[str, Any], category: str) -> list[tuple[str, float, float]]:
    return [
        (event["name"], event["ts"], event["ts"] + event["dur"])
        for event in trace["traceEvents"]
        if event["ph"] == "X" and event["cat"] == category
    ]


async def test_a_trace_has_every_step_with_its_phases_within_it_and_torchs_operators() -> None:
    model = tiny_model("Llama")
    decoder = make_decoder("transformers", model.config, packed_weights(model, 8), threads=1)
    engine = make_engine(decoder, blocks=64)
    recorder = Recorder(TorchOperators())
    async with engine.watched(recorder):
        await tokens_of(engine, PROMPT)
    engine.stop("the test is over")
    summary = summarize(recorder.recording(), "rep_1")
    trace = json.loads(gzip.decompress(gzipped_trace(recorder)))
    ours = spans(trace, "engine")
    steps = [span for span in ours if span[0] == "step"]
    assert len(steps) == 40 == summary.steps + summary.operator_steps
    for _, start, end in steps:
        within = [name for name, *span in ours if start <= span[0] and span[1] <= end + 0.01]
        assert [name for name in within if name != "step"] == [
            *("scheduling", "forward", "choosing", "emitting")
        ]
    operators = spans(trace, "cpu_op")
    forward = [span for span in ours if span[0] == "forward"][:OPERATOR_STEPS]
    inside = [
        name for name, at, _ in operators if any(start <= at <= end for _, start, end in forward)
    ]
    assert len(inside) > 0.8 * len(operators) > 100
    assert max(end for _, _, end in operators) <= steps[OPERATOR_STEPS][2] + 1000


async def test_the_phases_of_a_profile_follow_each_other_without_a_gap(engine: Engine) -> None:
    recorder = Recorder(NoOperators())
    async with engine.watched(recorder):
        await tokens_of(engine, PROMPT)
        while recorder._marks[-1][1] is not Phase.WAITING:
            await asyncio.sleep(0.001)
    kept = recorder.recording().spans
    assert all(former.end_ns == later.start_ns for former, later in pairwise(kept))
    assert kept[0].phase == Phase.INTAKE
    assert {Phase.WAITING, Phase.FORWARD} <= {span.phase for span in kept}


async def test_an_engine_that_nobody_watches_keeps_nothing(engine: Engine) -> None:
    recorder = Recorder(NoOperators())
    async with engine.watched(recorder):
        assert engine._stepper.phases is recorder
    before = len(recorder.recording().spans)
    await tokens_of(engine, PROMPT)
    assert engine._stepper.phases is UNWATCHED
    assert len(recorder.recording().spans) == before
    assert (vars(UNWATCHED), type(UNWATCHED)) == ({}, Phases)


def test_a_summary_tells_shares_times_and_what_a_step_ran() -> None:
    summary = told(OPERATOR_STEPS + 5)
    shares = {each.phase: round(each.share, 3) for each in summary.phases}
    assert shares == {"intake": 0.0, "scheduling": 0.1, "forward": 0.7, "emitting": 0.2}
    assert (summary.steps, summary.operator_steps) == (5, OPERATOR_STEPS)
    assert (summary.rows_per_step, summary.tokens_per_step) == (2.0, 6.0)
    forward = next(each for each in summary.phases if each.phase == "forward")
    assert [forward.mean_s, forward.p50_s, forward.p99_s] == pytest.approx([7e-9] * 3)


def test_operators_are_recorded_in_the_first_steps_only_and_those_are_not_summed_up() -> None:
    recorder, operators = played(OPERATOR_STEPS + 1)
    assert operators.turned == 2
    assert summarize(recorder.recording(), "rep_1").steps == 1
    assert told(OPERATOR_STEPS - 1).steps == OPERATOR_STEPS - 1, "rather those than nothing"


def test_a_recording_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "MAX_MARKS", 100)
    kept = played(100)[0].recording()
    assert len(kept.spans) == 99
    assert len(kept.steps) < 30


async def test_a_second_profile_is_refused_until_the_first_has_ended(engine: Engine) -> None:
    profiler = Profiler(engine)
    first = asyncio.create_task(profiler.profile(SOME, "rep_1"))
    await asyncio.sleep(0)
    with pytest.raises(RequestRefused, match="ask again when it has ended") as refused:
        await profiler.profile(SOME, "rep_1")
    assert (refused.value.status, refused.value.code) == (409, "profile_running")
    await first
    assert (await profiler.profile(SOME, "rep_1")).summary.replica_id == "rep_1"


async def test_a_caller_that_goes_away_ends_the_recording(engine: Engine) -> None:
    profiler = Profiler(engine)
    left = asyncio.create_task(profiler.profile(ProfileRequest(seconds=60), "rep_1"))
    while engine._stepper.phases is UNWATCHED:
        await asyncio.sleep(0.001)
    left.cancel()
    await asyncio.wait([left])
    assert left.cancelled()
    assert engine._stepper.phases is UNWATCHED
    await profiler.profile(SOME, "rep_1")


async def test_what_cannot_be_recorded_does_not_harm_the_engine(engine: Engine) -> None:
    class Broken(NoOperators):
        def start(self) -> None:
            raise RuntimeError("no profiler here")

    with pytest.raises(RuntimeError, match="no profiler here"):
        async with engine.watched(Recorder(Broken())):
            pass
    assert engine.dead is None
    assert len(await tokens_of(engine, PROMPT)) == 40


async def test_an_engine_that_has_stopped_says_so_instead_of_recording() -> None:
    engine = make_engine(FakeDecoder())
    engine.stop("the replica drains")
    with pytest.raises(EngineDead, match="the replica drains"):
        await Profiler(engine).profile(SOME, "rep_1")


def test_torch_records_only_the_thread_that_asked() -> None:
    """What we rely on: other threads neither pay for it nor fill the trace."""
    operators = TorchOperators()
    operators.start()
    other = threading.Thread(target=lambda: torch.ones(3).cumsum(0))
    other.start()
    other.join()
    torch.ones(3).neg()
    operators.stop()
    names = {event["name"] for event in operators.events(0)}
    assert "aten::neg" in names
    assert "aten::cumsum" not in names


def test_only_what_the_recorder_says_by_itself_is_taken_out_of_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "tidegate_runtime.profiling")
    with stray_lines_logged():
        os.write(2, b'USDT:1 profiler_start\n{"message": "of another thread"}\n')
    os.write(2, b"after\n")
    assert capfd.readouterr().err == '{"message": "of another thread"}\nafter\n'
    assert caplog.messages == ["USDT:1 profiler_start"]
