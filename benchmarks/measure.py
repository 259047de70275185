"""One run: every system takes its turn at every workload, again and again, on one machine.

All drivers stay loaded, and those whose turn it is not are stopped. Turns alternate, so that a
machine that grows slower or faster meanwhile does so for all of them.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from benchmarks.catalogue import System
from benchmarks.driver import Unsupported
from benchmarks.energy import Meter
from benchmarks.perplexity import perplexity
from benchmarks.process import Command, DriverFailed, Process
from benchmarks.rows import Row
from benchmarks.workloads import THROUGHPUT_32, Generation, Prompts

STARTS = 3
SLOW_START_S = 30.0
"""A system that needs longer is started once more only, after the start that fills caches."""
WARM_UP_TOKENS = 4


@dataclass
class Figures:
    """What was found of one system: every sample, and why there are no more."""

    system: System
    samples: dict[tuple[str, str, str], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By workload, metric and unit."""
    notes: list[str] = field(default_factory=list)
    failure: str | None = None
    first_start_s: float = 0.0
    busy_s: float = 0.0
    others_s: float = 0.0
    """CPU time that went to anybody else while this system was measured for `busy_s`."""

    def add(self, workload: str, metric: str, unit: str, value: float) -> None:
        """Keep one sample."""
        self.samples[workload, metric, unit].append(value)

    def rows(self) -> list[Row]:
        """The median of every figure."""
        return [
            Row(
                self.system.name,
                workload,
                metric,
                statistics.median(values),
                unit,
                self.system.precision,
            )
            for (workload, metric, unit), values in self.samples.items()
        ]


@dataclass(frozen=True)
class Plan:
    """What to run."""

    commands: Mapping[str, Command]
    """By the name of the system."""
    works: Sequence[Generation]
    windows: Sequence[list[int]]
    starts: int = STARTS


class Run:
    """Systems that are measured beside each other; one that fails leaves the others alone."""

    def __init__(
        self, plan: Plan, prompts: Prompts, meter: Meter, say: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._prompts = prompts
        self._meter = meter
        self._say = say
        self._processes: dict[str, Process] = {}

    def measure(self, systems: Sequence[System]) -> list[Figures]:
        """All of them, in the order in which they were given."""
        found = [Figures(system) for system in systems]
        try:
            for turn in range(self._plan.starts + 1):
                for figures in found:
                    self._start(figures, turn)
            for work in self._plan.works:
                self._run(work, [each for each in found if each.system.runs(work.name)])
            for figures in found:
                self._turn(figures, "perplexity", partial(self._finish, figures))
        finally:
            for process in self._processes.values():
                process.close()
        return found

    def _start(self, figures: Figures, turn: int) -> None:
        """The first start, which may have to fill a cache, is not counted."""
        name = figures.system.name
        if figures.failure is not None or turn > self._starts(figures):
            return
        if name in self._processes:
            self._processes.pop(name).close()
        try:
            process = Process(self._plan.commands[name])
        except DriverFailed as error:
            self._fail(figures, error)
            return
        self._processes[name] = process
        process.pause()
        if turn == 0:
            figures.first_start_s = process.ready_s
        else:
            figures.add("ready", "start", "s", process.ready_s)
        self._say(f"start {turn}: {name} {process.ready_s:.2f} s")

    def _starts(self, figures: Figures) -> int:
        return 1 if figures.first_start_s > SLOW_START_S else self._plan.starts

    def _run(self, work: Generation, found: Sequence[Figures]) -> None:
        """A warm-up of the same shape first, then in turns."""
        warm = replace(work, max_tokens=min(work.max_tokens, WARM_UP_TOKENS))
        prompts = self._prompts.take(warm)
        for figures in found:
            self._turn(figures, work.name, partial(_generate, work=warm, prompts=prompts))
        for _ in range(work.repeats):
            first = self._prompts.take(work) if work.metric == "decode" else []
            prompts = self._prompts.take(work)
            for figures in found:
                self._turn(figures, work.name, partial(self._sample, figures, work, first, prompts))
        for figures in found:
            values = figures.samples.get((work.name, work.metric, work.unit))
            if values:
                middle = statistics.median(values)
                self._say(f"{work.name}: {figures.system.name} {middle:.4g} {work.unit}")

    def _sample(
        self,
        figures: Figures,
        work: Generation,
        first: list[list[int]],
        prompts: list[list[int]],
        process: Process,
    ) -> None:
        """Measure once; `first` are the prompts whose first tokens are timed alone before."""
        first_token_s = _generate(process, replace(work, max_tokens=1), first) if first else 0.0
        before = self._meter.read()
        seconds = _generate(process, work, prompts)
        spent_j = self._meter.joules_since(before)
        figures.add(work.name, work.metric, work.unit, figure(work, seconds, first_token_s))
        if work.name == THROUGHPUT_32.name and self._meter.available:
            tokens = work.streams * work.max_tokens
            figures.add("energy", "joules_per_token", "J/token", spent_j / tokens)

    def _finish(self, figures: Figures, process: Process) -> None:
        """The memory that generating needed, then the quality."""
        figures.add("memory", "peak_rss", "bytes", float(process.peak_bytes()))
        if figures.system.workloads is not None:
            return
        value = perplexity(partial(_logprobs, process), self._plan.windows)
        figures.add("perplexity", "perplexity", "1", value)
        self._say(f"perplexity: {figures.system.name} {value:.4f}")

    def _turn(self, figures: Figures, what: str, action: Callable[[Process], object]) -> None:
        """Let this system alone run `what`; nothing happens when it has failed before."""
        if figures.failure is not None:
            return
        process = self._processes[figures.system.name]
        process.resume()
        before, began = process.cpu_time(), time.perf_counter()
        try:
            action(process)
        except DriverFailed as error:
            self._fail(figures, error)
            return
        except Unsupported as error:
            figures.notes.append(f"{what} is not available: {error}")
        figures.busy_s += time.perf_counter() - began
        figures.others_s += before.taken_by_others(process.cpu_time())
        process.pause()

    def _fail(self, figures: Figures, error: DriverFailed) -> None:
        figures.failure = str(error)
        self._processes.pop(figures.system.name, None)
        self._say(f"{figures.system.name} failed: {error}")


def figure(work: Generation, seconds: float, first_token_s: float) -> float:
    """A workload's metric from the time of the whole and, for decoding, of the first token."""
    if work.metric == "time_to_first_token":
        return seconds
    if work.metric == "prefill":
        return work.streams * work.prompt_tokens / seconds
    if work.metric == "decode":
        return work.streams * (work.max_tokens - 1) / (seconds - first_token_s)
    return work.streams * work.max_tokens / seconds


def _generate(process: Process, work: Generation, prompts: list[list[int]]) -> float:
    command = "sample" if work.sampled else "generate"
    answer = process.ask({command: {"prompts": prompts, "max_tokens": work.max_tokens}})
    return float(answer["seconds"])


def _logprobs(process: Process, window: list[int]) -> list[float]:
    found: list[float] = process.ask({"logprobs": window})["logprobs"]
    return found
