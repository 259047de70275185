"""The text that methods look at: windows of one length, and a digest that names it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate_runtime.artifact.measure import read_text
from tidegate_runtime.errors import ModelRefused


@dataclass(frozen=True)
class Calibration:
    """`windows` of tokens, each run alone from position 0; `digest` is of the whole text."""

    name: str
    digest: str
    windows: tuple[tuple[int, ...], ...]


def read_calibration(
    path: Path, tokenizer: Any, *, window: int, count: int, context_tokens: int
) -> Calibration:
    """The first windows of a text file. Raises ModelRefused (BadWindow, BadText, TextTooShort)."""
    if not 2 <= window <= context_tokens:
        raise ModelRefused(
            "BadWindow",
            f"--window {window} is not within 2..{context_tokens}, the model's context; choose "
            "another",
        )
    content = read_text(path)
    tokens = tokenizer(content, add_special_tokens=False, verbose=False)["input_ids"]
    if len(tokens) < window * count:
        fewer = f", or --windows {len(tokens) // window}" if len(tokens) >= window else ""
        raise ModelRefused(
            "TextTooShort",
            f"--text {str(path)!r} has {len(tokens)} tokens, and {count} windows of {window} take "
            f"{window * count}; use a longer text{fewer}",
        )
    starts = range(0, window * count, window)
    windows = tuple(tuple(tokens[start : start + window]) for start in starts)
    return Calibration(str(path), text_digest(content), windows)


def text_digest(content: str) -> str:
    """What names a text, whatever its file is called."""
    return "sha256:" + hashlib.sha256(content.encode()).hexdigest()
