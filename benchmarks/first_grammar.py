"""What a replica's first grammar costs the answers beside it: the longest gap between two steps.

    python -m benchmarks.first_grammar --artifact DIR [--warm]

An engine with its model writes one long answer, and each window of it is timed step by step:
alone, beside the first grammar, beside a second one that is new too, and beside one that is known.
`--warm` loads the model as a fork of a zygote does that has read it before.

Two figures for a gap: its time, which a busy machine stretches, and what the process's other
threads used of the processor within it, which is what they can have held the steps up with.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tidegate.protocol.openai import CompletionRequest
from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.artifact.open import open_artifact
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.metrics import Metrics

WINDOW_S = 2.0
ANSWER_TOKENS = 12
SCHEMAS: Mapping[str, Any] = {
    "first": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}}},
    "second": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 9},
    "known": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}}},
}


class Step(NamedTuple):
    """When a step ended, and the processor's seconds that the other threads had used by then."""

    at_s: float
    others_s: float


class Steps(Metrics):
    """Keeps every step. The engine's thread calls it."""

    def __init__(self) -> None:
        super().__init__("measured")
        self.taken: list[Step] = []

    def step(self, *report: Any) -> None:
        others_s = time.process_time() - time.thread_time()
        self.taken.append(Step(time.perf_counter(), others_s))
        super().step(*report)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--warm", action="store_true")
    asked = parser.parse_args()
    print(json.dumps(asyncio.run(measure(asked.artifact, is_warm=asked.warm)), indent=1))


async def measure(root: Path, *, is_warm: bool) -> dict[str, Any]:
    """Seconds to load, and what held up the steps of each window."""
    from tidegate_runtime.server.loading import load_generate

    config = ReplicaConfig(
        replica_id="measured",
        model_name="measured",
        source=str(root),
        status_path=None,
        cache_dir=str(root.parent),
        kv_cache_bytes=1 << 28,
        threads=1,
    )
    artifact, steps = open_artifact(root), Steps()
    options = warmed(artifact) if is_warm else {}
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    service, engine = load_generate(config, artifact, steps, print, **options)
    found: dict[str, Any] = {
        "load_s": round(time.perf_counter() - began_s, 3),
        "load_cpu_s": round(time.process_time() - began_cpu_s, 3),
    }
    caller = Caller(time.monotonic())

    def ask(max_tokens: int, **fields: Any) -> Awaitable[Any]:
        request = CompletionRequest(
            model="measured", prompt="Once", max_tokens=max_tokens, ignore_eos=True, **fields
        )
        return service.complete(request, caller)

    await ask(4)
    beside = asyncio.ensure_future(ask(service.context_tokens - 16))
    await asyncio.sleep(WINDOW_S)
    found["alone"] = longest(steps.taken[5:])
    for name, schema in SCHEMAS.items():
        before = len(steps.taken)
        asked_s = time.perf_counter()
        await ask(ANSWER_TOKENS, guided_json=schema)
        found[f"{name}_answer_s"] = round(time.perf_counter() - asked_s, 3)
        await asyncio.sleep(WINDOW_S)
        found[f"{name}"] = longest(steps.taken[before:])
    beside.cancel()
    await asyncio.gather(beside, return_exceptions=True)
    engine.stop("measured")
    return found


def warmed(artifact: Any) -> dict[str, Any]:
    """What a zygote hands over."""
    from tidegate_runtime.artifact.load import load_generator
    from tidegate_runtime.artifact.warm import WarmModel
    from tidegate_runtime.grammar.tables import read_tables

    loaded = load_generator(artifact, context_tokens=None)
    tables = read_tables(loaded.tokenizer, loaded.vocabulary_size, loaded.eos_tokens)
    return {"warm": WarmModel(artifact, loaded.tokenizer, tables, (), "", 0)}


def longest(taken: list[Step]) -> dict[str, float]:
    """Milliseconds of the longest gap, and of the one in which other threads worked most."""
    gaps = [Step(*(b - a for a, b in zip(*pair, strict=True))) for pair in pairwise(taken)]
    return {
        "gap_ms": round(max(gap.at_s for gap in gaps) * 1e3, 1),
        "others_ms": round(max(gap.others_s for gap in gaps) * 1e3, 1),
    }


if __name__ == "__main__":
    main()
