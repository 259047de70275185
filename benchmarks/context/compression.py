"""What a model still knows of a context that was cut: nats a token of what it should say next.

Every way of cutting gets the same target; `truncated` leaves out the oldest sentences, which is
what a caller does without the option. A chat's answer is the sentence that was hidden in it, a
text's is what follows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from benchmarks.context.model import Model
from benchmarks.context.tasks import continuations, recalls
from benchmarks.rows import Row

from tidegate.protocol.openai import ChatMessage, ContextCompression
from tidegate_runtime.context.compressor import Cuttable
from tidegate_runtime.context.prompts import cuttable_chat, cuttable_prompt, split_tail, with_texts
from tidegate_runtime.server.caller import Caller

Method = Literal["relevance", "surprise", "tokens"]
METHODS: tuple[Method, ...] = ("relevance", "surprise", "tokens")
SHARES = (50, 25)
"""Percent of the tokens that are left."""
CONTEXT_TOKENS = 500
NEXT_TOKENS = 64


@dataclass(frozen=True)
class Case:
    """A prompt that may be cut, its tokens with other texts in it, and the tokens that follow."""

    prompt: Cuttable
    tokens: Callable[[Sequence[str]], list[int]]
    answer: list[int]


async def measure(
    model: Model,
    tasks: Sequence[str],
    shares: Sequence[int],
    count: int,
    say: Callable[[str], None],
) -> list[Row]:
    """Rows of every way of cutting, by task and by the share of the tokens that is left."""
    rows = []
    for task in tasks:
        cases = TASKS[task](model, count)
        whole = [await model.nats(case.tokens(case.prompt.texts), case.answer) for case in cases]
        rows.append(_row(model, "whole", task, "nats a token", fmean(whole), "nats"))
        say(f"{task}, whole: {rows[-1].value:g} nats")
        for share in shares:
            workload = f"{task}, {share} % left"
            for system in ("truncated", *METHODS):
                found = await _cut(model, cases, workload, share, system)
                figures = ", ".join(f"{row.value:g} {row.unit}" for row in found)
                say(f"{workload}: {system}: {figures}")
                rows += found
    return rows


async def _cut(
    model: Model, cases: Sequence[Case], workload: str, share: int, system: str
) -> list[Row]:
    nats, seconds, left = [], [], []
    for case in cases:
        tokens = case.prompt.count(case.prompt.texts)
        method = "relevance" if system == "truncated" else system
        asked = ContextCompression.model_validate(
            {"target_tokens": tokens * share // 100, "method": method}
        )
        # Without a question every sentence is as far from it, and the later ones stay.
        prompt = replace(case.prompt, question="") if system == "truncated" else case.prompt
        started = time.perf_counter()
        cut = await model.compressor.compress(prompt, asked, Caller(0.0))
        seconds.append(time.perf_counter() - started)
        shorter = case.tokens(cut.texts)
        left.append(len(shorter) / tokens)
        nats.append(await model.nats(shorter, case.answer))
    return [
        _row(model, system, workload, "nats a token", fmean(nats), "nats"),
        _row(model, system, workload, "time to cut", fmean(seconds) * 1000, "ms"),
        _row(model, system, workload, "left", fmean(left) * 100, "%"),
    ]


def _chats(model: Model, count: int) -> list[Case]:
    made = []
    for task in recalls(count):

        def tokens(
            texts: Sequence[str], messages: Sequence[ChatMessage] = task.messages
        ) -> list[int]:
            return model.chat(with_texts(messages, texts))

        prompt = cuttable_chat(task.messages, lambda messages: len(model.chat(messages)))
        made.append(Case(prompt, tokens, model.tokens(task.answer)))
    return made


def _texts(model: Model, count: int) -> list[Case]:
    made = []
    for text, follows in continuations(count, CONTEXT_TOKENS, NEXT_TOKENS, model.tokens):

        def tokens(texts: Sequence[str], tail: str = split_tail(text)[1]) -> list[int]:
            return model.tokens(texts[0] + tail)

        prompt = cuttable_prompt(text, lambda cut: len(model.tokens(cut)))
        made.append(Case(prompt, tokens, model.tokens(follows)))
    return made


TASKS: Mapping[str, Callable[[Model, int], list[Case]]] = {
    "recall": _chats,
    "continuation": _texts,
}


def _row(model: Model, system: str, workload: str, metric: str, value: float, unit: str) -> Row:
    return Row(system, workload, metric, round(value, 3), unit, model.precision)
