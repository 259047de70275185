"""Real processes: a fake system behind the real driver."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.catalogue import System
from benchmarks.driver import Unsupported
from benchmarks.energy import Meter
from benchmarks.measure import Plan, Run
from benchmarks.process import Command, DriverFailed, Process
from benchmarks.procfs import tree
from benchmarks.workloads import DECODE_1, TTFT, Frame, Prompts

FAKE = """
import sys
from benchmarks.driver import Unsupported, run

class Fake:
    def __init__(self, options):
        print("a library that talks on stdout")
        if options.model.name == "broken":
            sys.exit("the weights are broken")

    def generate(self, prompts, max_tokens):
        if len(prompts) == 3:
            raise MemoryError("three are too many")
        return [min(max_tokens, 100_000)] * len(prompts)

    def logprobs(self, window):
        if len(window) == 2:
            raise Unsupported("not for two tokens")
        return [-1.0] * (len(window) - 1)

run(Fake)
"""
SYSTEM = System("fake", "fake", "int8", "artifact")


def make_command(folder: Path, model: str = "fine") -> Command:
    options = f"--model {model} --threads 1 --streams 8 --context-tokens 64".split()
    return Command([sys.executable, "-c", FAKE, *options], {"PYTHONPATH": "."}, folder / "log")


@contextmanager
def started(folder: Path) -> Iterator[Process]:
    process = Process(make_command(folder))
    try:
        yield process
    finally:
        process.close()


def test_a_driver_answers_and_what_libraries_print_is_not_in_the_way(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        answer = process.ask({"generate": {"prompts": [[1], [2]], "max_tokens": 5}})
        assert answer["tokens"] == 10
        assert process.ask({"logprobs": [1, 2, 3]}) == {"logprobs": [-1.0, -1.0]}
    assert "a library that talks" in (tmp_path / "log").read_text()


def test_what_a_system_cannot_do_is_said_and_it_goes_on(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        with pytest.raises(Unsupported, match="not for two tokens"):
            process.ask({"logprobs": [1, 2]})
        assert process.ask({"logprobs": [1, 2, 3]})


def test_a_system_without_sampling_says_so(tmp_path: Path) -> None:
    with started(tmp_path) as process, pytest.raises(Unsupported, match="only asked greedily"):
        process.ask({"sample": {"prompts": [[1]], "max_tokens": 5}})


def test_what_a_system_cannot_do_is_a_note_and_not_a_failure(tmp_path: Path) -> None:
    plan = Plan({"fake": make_command(tmp_path)}, [], windows=[[1, 2]], starts=1)
    run = Run(plan, Prompts(range(100), Frame((), ())), Meter([]), say=lambda _: None)
    (figures,) = run.measure([SYSTEM])
    assert figures.failure is None
    assert figures.notes == ["perplexity is not available: not for two tokens"]
    assert {row.workload for row in figures.rows()} == {"ready", "memory"}


def test_a_driver_that_cannot_start_fails_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(DriverFailed, match="exit status 1: the weights are broken"):
        Process(make_command(tmp_path, model="broken"))


def test_a_driver_that_crashes_fails_with_its_last_line(tmp_path: Path) -> None:
    with started(tmp_path) as process, pytest.raises(DriverFailed, match="three are too many"):
        process.ask({"generate": {"prompts": [[1], [2], [3]], "max_tokens": 5}})


def test_a_system_that_makes_fewer_tokens_than_asked_for_fails(tmp_path: Path) -> None:
    with started(tmp_path) as process, pytest.raises(DriverFailed, match=r"got \[100000\]"):
        process.ask({"generate": {"prompts": [[1]], "max_tokens": 100_001}})


def test_a_paused_driver_is_ended_all_the_same(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        process.pause()
        assert process.peak_bytes() > 1_000_000
        (pid,) = tree(process.pid)
    assert not Path(f"/proc/{pid}").exists()


def test_one_system_that_fails_leaves_the_others_measured(tmp_path: Path) -> None:
    broken = replace(SYSTEM, name="broken")
    plan = Plan(
        commands={"fake": make_command(tmp_path), "broken": make_command(tmp_path, "broken")},
        works=[TTFT, DECODE_1],
        windows=[[1, 2, 3]],
        starts=1,
    )
    run = Run(plan, Prompts(range(10_000), Frame((), ())), Meter([]), say=lambda _: None)
    fine, failed = run.measure([SYSTEM, broken])
    assert failed.failure is not None and "broken" in failed.failure
    assert failed.rows() == []
    found = {row.workload for row in fine.rows()}
    assert found == {"ready", "ttft", "decode_1", "memory", "perplexity"}
