"""What speculation is measured on, and what heads learn from: other pieces of the same kinds.

Everything is in the standard library, or written here.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

from benchmarks.prose import prose

_TRAINED_PROSE = 260_000
"""The first so many characters are trained on, the rest is measured on."""
_TRAINED_CODE = [
    "json/decoder",
    "json/encoder",
    "textwrap",
    "heapq",
    "bisect",
    "queue",
    "sched",
    "shutil",
    "csv",
    "statistics",
    "fractions",
    "random",
    "string",
    "threading",
    "contextlib",
    "dataclasses",
    "configparser",
    "argparse",
    "calendar",
    "difflib",
]
_MEASURED_CODE = ["tarfile", "zipfile", "smtplib", "turtle", "pathlib", "tempfile"]
_ASKED = [
    "Tell me about",
    "What is",
    "How do I",
    "Why does",
    "Explain",
    "Give me three tips for",
    "Write a short story about",
    "Summarise",
    "List the steps to",
    "What are the benefits of",
    "Compare cats and dogs with regard to",
    "Write a poem about",
]
_THINGS = [
    "photosynthesis",
    "a volcano",
    "the water cycle",
    "learning a language",
    "baking bread",
    "gravity",
    "a good night's sleep",
    "the Roman Empire",
    "a bicycle",
    "climate",
    "music",
    "gardening",
    "running",
    "electricity",
    "friendship",
    "the moon",
    "democracy",
    "a computer",
    "vaccines",
    "tea",
    "trains",
    "mountains",
    "the ocean",
    "chess",
    "painting",
    "bees",
    "honesty",
    "coffee",
    "earthquakes",
    "a library",
]
_QUESTIONS = (
    "How do plants grow from a seed?",
    "What should I pack for a weekend of hiking?",
    "Why is the sky blue?",
    "Describe how a refrigerator works.",
    "Give me advice for a job interview.",
    "What happened during the industrial revolution?",
)
_CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
_CORRECT = "Correct the spelling of this text and change nothing else:\n\n{}"


@dataclass(frozen=True)
class Task:
    """Texts to be continued."""

    name: str
    prompts: tuple[str, ...]


def training_text() -> str:
    """Prose, code and questions."""
    chance = random.Random(1)
    asked = [
        _CHAT.format(f"{words} {thing}?") for thing in _THINGS for words in chance.sample(_ASKED, 6)
    ]
    code = "\n\n".join(_code(module, 12_000) for module in _TRAINED_CODE)
    return "\n\n".join((prose()[:_TRAINED_PROSE], code, "".join(asked)))


def tasks(count: int) -> list[Task]:
    """`count` prompts of each kind, none of which was trained on."""
    told = prose()[_TRAINED_PROSE:]
    starts = range(0, len(told) - 2000, (len(told) - 2000) // count)
    pieces = [told[start : start + 800] for start in starts][:count]
    return [
        Task("prose", tuple(pieces)),
        Task("code", tuple(_code(module, 3000)[-900:] for module in _MEASURED_CODE[:count])),
        Task("repeat the prompt", tuple(_CHAT.format(_CORRECT.format(p[:600])) for p in pieces)),
        Task("question and answer", tuple(_CHAT.format(each) for each in _QUESTIONS[:count])),
    ]


def _code(module: str, length: int) -> str:
    return (Path(os.__file__).parent / f"{module}.py").read_text()[:length]
