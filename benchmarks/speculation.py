"""Measure what each way of speculating brings, task by task: `python -m benchmarks.speculation`.

One stream, greedy, on SmolLM2-135M in int8. Every prompt is answered by all methods in turn, so a
disturbance of the machine meets all alike; and the answers must be the same, token by token. Heads
are trained first, unless they are there. Writes benchmarks/results/speculation.json and prints the
table of docs/speculation.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
import transformers
from benchmarks.hardware import hardware
from benchmarks.report import RESULTS
from benchmarks.speculation_texts import Task, tasks, training_text
from benchmarks.systems.tidegate import Unwatched
from benchmarks.weights import bundled_model

from tidegate.spec import SpeculationSpec
from tidegate_runtime.artifact.manifest import default_kv
from tidegate_runtime.engine.block_manager import BlockManager, blocks_for
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.model_runner import ModelRunner
from tidegate_runtime.engine.scheduler import Scheduler
from tidegate_runtime.engine.sequence import SamplingParams, SequenceRequest
from tidegate_runtime.models.open import open_decoder
from tidegate_runtime.speculation.heads import read_heads
from tidegate_runtime.speculation.ngram import NgramProposer
from tidegate_runtime.speculation.open import open_self_speculation

PLAIN = "none"
PRECISION = "int8"
CONTEXT_TOKENS = 1024
WARM_UP = (1, 2, 3, 4)


@dataclass
class Score:
    """One method on one task. Seconds and tokens are those after the first token."""

    method: str
    task: str
    seconds: float = 0.0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


class Contestant:
    """An engine of its own for one method."""

    def __init__(self, method: str, artifact: Path, threads: int, asked: SpeculationSpec | None):
        decoder = open_decoder(artifact, threads=threads, kv=default_kv(PRECISION))
        total = 2 * blocks_for(CONTEXT_TOKENS)
        decoder.allocate(total)
        blocks = BlockManager(total)
        proposer = None
        if asked is not None:
            proposer = (
                NgramProposer()
                if asked.method == "ngram"
                else open_self_speculation(asked, decoder, blocks, max_sequences=1)
            )
        self.method = method
        self._engine = Engine(
            ModelRunner(decoder),
            Scheduler(blocks, max_sequences=1),
            transformers.AutoTokenizer.from_pretrained(artifact),
            eos_tokens=frozenset(),
            observer=Unwatched(),
            proposer=proposer,
        )
        self._engine.start()

    async def answer(self, prompt: tuple[int, ...], count: int, score: Score) -> list[int]:
        """Continue a prompt greedily and add what it took."""
        request = SequenceRequest(prompt, count, SamplingParams(temperature=0.0), ignore_eos=True)
        before = self._engine.stats().totals
        tokens, began = [], 0.0
        async with self._engine.generate([request]) as events:
            async for event in events:
                began = began or time.perf_counter()
                tokens.append(event.token or 0)
        score.seconds += time.perf_counter() - began
        score.tokens += len(tokens) - 1
        after = self._engine.stats().totals
        score.drafted += after.drafted_tokens - before.drafted_tokens
        score.accepted += after.accepted_tokens - before.accepted_tokens
        return tokens


def main() -> int:
    given = _parse()
    torch.set_num_threads(given.threads)
    model = bundled_model(given.folder)
    artifact = model.path("artifact", PRECISION)
    if not (artifact / "manifest.json").exists():
        model.prepare("artifact", PRECISION)
    trained = {
        "early exit, trained": _train(given, artifact, "early-exit", given.exit_layer),
        "medusa": _train(given, artifact, "medusa", None),
        "hydra": _train(given, artifact, "hydra", None),
    }
    contestants = [
        Contestant(method, artifact, given.threads, asked)
        for method, asked in _methods(given.exit_layer, trained).items()
    ]
    scores = asyncio.run(_measure(contestants, tasks(given.prompts), artifact, given.tokens))
    acceptance = {method: read_heads(root)[0].acceptance for method, root in trained.items()}
    _write(given.output, scores, acceptance)
    print("\n".join(_table(scores)))
    os._exit(0)  # engines have no end of their own here


def _methods(exit_layer: int, heads: Mapping[str, Path]) -> dict[str, SpeculationSpec | None]:
    return {
        PLAIN: None,
        "ngram": SpeculationSpec(method="ngram"),
        "early exit": SpeculationSpec(method="early_exit", exit_layer=exit_layer),
        **{
            name: SpeculationSpec.model_validate(
                {"method": name.split(",")[0].replace(" ", "_"), "heads": str(root)}
            )
            for name, root in heads.items()
        },
    }


async def _measure(
    contestants: Sequence[Contestant], found: Sequence[Task], artifact: Path, count: int
) -> list[Score]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(artifact)
    scores = []
    for each in contestants:
        await each.answer(WARM_UP, count, Score(each.method, "warm-up"))
    for task in found:
        of_task = [Score(each.method, task.name) for each in contestants]
        for text in task.prompts:
            prompt = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
            answers = [
                await each.answer(prompt, count, score)
                for each, score in zip(contestants, of_task, strict=True)
            ]
            if any(answer != answers[0] for answer in answers):
                raise RuntimeError(f"the methods disagree on {text[:40]!r}")
        scores += of_task
        print(f"{task.name} is measured", file=sys.stderr, flush=True)
    return scores


def _train(given: argparse.Namespace, artifact: Path, method: str, layer: int | None) -> Path:
    """The heads of a method, made unless they are there."""
    root: Path = given.folder / f"heads-{method}"
    text = given.folder / "speculation.txt"
    if not root.exists():
        text.write_text(training_text())
        command = [sys.executable, "-m", "tidegate_runtime.distill", str(artifact)]
        command += ["--text", str(text), "--method", method, "--output", str(root)]
        command += ["--threads", str(given.threads)]
        command += ["--exit-layer", str(layer)] if layer is not None else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return root


def _write(
    output: Path, scores: Sequence[Score], acceptance: Mapping[str, Sequence[float]]
) -> None:
    rows = [{**asdict(each), "tokens_per_s": round(each.tokens_per_s, 1)} for each in scores]
    result = {"hardware": hardware(), "held_out_acceptance": acceptance, "rows": rows}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")


def _table(scores: Sequence[Score]) -> list[str]:
    """Markdown: how many times as fast as without, and how many of the guesses were right."""
    names = list(dict.fromkeys(each.task for each in scores))
    plain = {each.task: each.tokens_per_s for each in scores if each.method == PLAIN}
    head = ["method", *(f"{name} ({plain[name]:.0f} tok/s without)" for name in names)]
    lines = [head, ["---"] * len(head)]
    for method in dict.fromkeys(each.method for each in scores if each.method != PLAIN):
        own = {each.task: each for each in scores if each.method == method}
        lines.append([method, *(_cell(own[name], plain[name]) for name in names)])
    return ["| " + " | ".join(line) + " |" for line in lines]


def _cell(score: Score, plain: float) -> str:
    times = f"{score.tokens_per_s / plain:.2f}×"
    if not score.drafted:
        return f"{times}, none made"
    return f"{times}, {score.accepted / score.drafted:.0%} of {score.drafted}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speculation", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=4, help="of each task, six at most")
    parser.add_argument("--tokens", type=int, default=128, help="of each answer")
    parser.add_argument("--exit-layer", type=int, default=8)
    parser.add_argument("--output", type=Path, default=RESULTS / "speculation.json")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="models and heads")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
