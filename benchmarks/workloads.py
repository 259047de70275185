"""What is measured, and on which tokens.

The prompts are consecutive pieces of one text. Every measurement takes the next pieces, so no
prefix cache can know them, and every system is given the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Metric = Literal["time_to_first_token", "decode", "prefill", "output"]
"""`decode` counts the tokens after the first; `output` counts all tokens of all streams, from the
first prompt in to the last token out."""


@dataclass(frozen=True)
class Generation:
    """`streams` prompts of one length at once, each answered with `max_tokens` tokens.

    It is measured `repeats` times and the median counts. With `repeat_after_me` the prompt holds a
    text and asks for it once more, which is what guessing from the prompt is good at. A small model
    that answers greedily soon repeats itself; where that must not be, its tokens are `sampled`.
    """

    name: str
    metric: Metric
    streams: int
    prompt_tokens: int
    max_tokens: int
    repeats: int
    repeat_after_me: bool = False
    sampled: bool = False

    @property
    def unit(self) -> str:
        """Of its metric."""
        return "s" if self.metric == "time_to_first_token" else "tok/s"


TTFT = Generation("ttft", "time_to_first_token", 1, 128, 1, repeats=5)
DECODE_1 = Generation("decode_1", "decode", 1, 128, 128, repeats=5)
PREFILL_1024 = Generation("prefill_1024", "prefill", 1, 1024, 1, repeats=5)
THROUGHPUT_8 = Generation("throughput_8", "output", 8, 128, 128, repeats=3)
THROUGHPUT_32 = Generation("throughput_32", "output", 32, 128, 128, repeats=3)
THROUGHPUT_64 = Generation("throughput_64", "output", 64, 128, 128, repeats=2)
SPECULATE_REPEAT = Generation("speculate_repeat", "decode", 1, 256, 192, 3, repeat_after_me=True)
SPECULATE_PLAIN = Generation("speculate_plain", "decode", 1, 256, 192, 3, sampled=True)

GENERATIONS = (TTFT, DECODE_1, PREFILL_1024, THROUGHPUT_8, THROUGHPUT_32, THROUGHPUT_64)
SPECULATIONS = (SPECULATE_REPEAT, SPECULATE_PLAIN)
WORKS = (*GENERATIONS, *SPECULATIONS)
MAX_STREAMS = max(work.streams for work in GENERATIONS)
CONTEXT_TOKENS = max(work.prompt_tokens + work.max_tokens for work in WORKS)


def quick(works: Sequence[Generation]) -> list[Generation]:
    """Each measured once, and without the longest, to try a run out."""
    return [replace(work, repeats=1) for work in works if work.streams <= THROUGHPUT_32.streams]


@dataclass(frozen=True)
class Frame:
    """The tokens around a text that ask for it to be repeated with small changes."""

    before: tuple[int, ...]
    after: tuple[int, ...]


ASK_TO_REPEAT = (
    "<|im_start|>user\nCorrect the spelling of this text and change nothing else:\n\n",
    "<|im_end|>\n<|im_start|>assistant\n",
)
"""What stands before and after the text, with the marks of SmolLM2's chat template."""


class Prompts:
    """Deals out pieces of a text, each piece once, until the text is used up."""

    def __init__(self, tokens: Sequence[int], frame: Frame) -> None:
        self._tokens = tokens
        self._frame = frame
        self._next = 0

    def take(self, work: Generation) -> list[list[int]]:
        """Prompts of exactly `work.prompt_tokens` tokens. Raises ValueError at the text's end."""
        if not work.repeat_after_me:
            return [self._piece(work.prompt_tokens) for _ in range(work.streams)]
        frame = self._frame
        inside = work.prompt_tokens - len(frame.before) - len(frame.after)
        return [[*frame.before, *self._piece(inside), *frame.after] for _ in range(work.streams)]

    def _piece(self, length: int) -> list[int]:
        start, self._next = self._next, self._next + length
        if self._next > len(self._tokens):
            raise ValueError(
                f"the text has {len(self._tokens)} tokens, and the prompts need {self._next}; "
                "use a longer text or fewer repeats"
            )
        return list(self._tokens[start : self._next])
