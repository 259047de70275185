"""The process of one system: reads commands from stdin, answers on stdout, one JSON object a line.

Every system, ours or a peer's, is an `Engine` of two methods in benchmarks/systems/, and all that
is timed is timed here, so nobody brings a clock of their own. Only the standard library is
imported: a driver runs in its peer's own virtual environment.

    {"generate": {"prompts": [[1, 2], ...], "max_tokens": 8}}  ->  {"seconds": 0.1, "tokens": 8}
    {"sample": ...}  ->  the same, drawn at temperature 1 instead of greedily
    {"logprobs": [1, 2, ...]}  ->  {"logprobs": [-0.1, ...]}  or  {"unsupported": "why"}
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

WARM_UP = [1, 2, 3, 4, 5, 6, 7, 8]


class Unsupported(Exception):
    """The system cannot do this at all; it is shown as not available."""


class Engine(Protocol):
    """A loaded model: greedy, end of sequence ignored."""

    def generate(self, prompts: list[list[int]], max_tokens: int) -> list[int]:
        """Answer all prompts at the same time; how many tokens each answer got."""
        ...

    def logprobs(self, window: list[int]) -> list[float]:
        """log p(token | all before) for every token of the window but the first."""
        ...


@runtime_checkable
class SamplingEngine(Engine, Protocol):
    """One that can also be asked for text that does not repeat itself."""

    def sample(self, prompts: list[list[int]], max_tokens: int) -> list[int]:
        """As `generate`, but each token drawn from the model's own distribution, seeds fixed."""
        ...


@dataclass(frozen=True)
class Options:
    """What a driver is told on its command line."""

    model: Path
    """The GGUF file, the directory with the same weights in bf16, or an artifact."""
    threads: int
    streams: int
    """The most prompts it will be given at once."""
    context_tokens: int
    """The longest prompt with its answer."""
    speculate: bool


def run(open_engine: Callable[[Options], Engine]) -> None:
    """Open the engine, answer one token, say so, then obey until stdin ends."""
    options = _parse()
    answers = _private_stdout()
    engine = open_engine(options)
    engine.generate([WARM_UP], 1)
    _answer(answers, {"ready": True})
    for line in sys.stdin:
        _answer(answers, _obey(engine, json.loads(line)))
    os._exit(0)  # some libraries hang or crash when they are torn down


def _obey(engine: Engine, command: dict[str, Any]) -> dict[str, Any]:
    try:
        if "logprobs" in command:
            return {"logprobs": engine.logprobs(command["logprobs"])}
        if "sample" in command:
            if not isinstance(engine, SamplingEngine):
                return {"unsupported": "it is only asked greedily"}
            return _timed(engine.sample, **command["sample"])
        return _timed(engine.generate, **command["generate"])
    except Unsupported as error:
        return {"unsupported": str(error)}


def _timed(
    answer: Callable[[list[list[int]], int], list[int]],
    prompts: list[list[int]],
    max_tokens: int,
) -> dict[str, Any]:
    began = time.perf_counter()
    made = answer(prompts, max_tokens)
    seconds = time.perf_counter() - began
    if made != [max_tokens] * len(prompts):
        raise RuntimeError(f"asked for {len(prompts)} answers of {max_tokens} tokens, got {made}")
    return {"seconds": seconds, "tokens": sum(made)}


def _private_stdout() -> TextIO:
    """The stream for answers; what libraries print goes to stderr instead."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "w")


def _answer(stream: TextIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def _parse() -> Options:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--context-tokens", type=int, required=True)
    parser.add_argument("--speculate", action="store_true")
    return Options(**vars(parser.parse_args()))
