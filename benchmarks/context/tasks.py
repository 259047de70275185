"""Chats and texts, and what a model should say after them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.prose import prose

from tidegate.protocol.openai import ChatMessage

_NAMES = (
    *("Alma", "Boris", "Chen", "Dina", "Emil", "Farah", "Goran", "Hana"),
    *("Ivo", "Jana", "Karim", "Lena", "Milo", "Nora", "Omar", "Petra"),
)
_HISTORY_TURNS = 8
_PARAGRAPH_CHARACTERS = 420


@dataclass(frozen=True)
class Recall:
    """A chat about many things, whose last question only one sentence of it answers."""

    messages: Sequence[ChatMessage]
    answer: str


def recalls(count: int) -> list[Recall]:
    """Chats of eight turns: a paragraph of prose with a fact in it, and a word of thanks."""
    chance = random.Random(7)
    paragraphs = _paragraphs()
    return [_recall(chance, paragraphs, place) for place in range(count)]


def continuations(
    count: int, context_tokens: int, next_tokens: int, tokens_of: Callable[[str], Sequence[int]]
) -> list[tuple[str, str]]:
    """Pieces of prose of about so many tokens, and what follows each."""
    text = prose()
    share = len(text) // count
    made = []
    for place in range(count):
        part = text[place * share : place * share + 8 * (context_tokens + next_tokens)]
        characters = len(part) / len(tokens_of(part))
        end = part.find(" ", int(context_tokens * characters))
        made.append((part[:end], part[end : end + int(next_tokens * characters)]))
    return made


def _recall(chance: random.Random, paragraphs: list[str], place: int) -> Recall:
    names = chance.sample(_NAMES, _HISTORY_TURNS)
    numbers = [chance.randrange(1000, 9999) for _ in names]
    messages = [_message("system", "Answer from what you were told.")]
    for turn, (name, number) in enumerate(zip(names, numbers, strict=True)):
        before, _, after = paragraphs[place * _HISTORY_TURNS + turn].partition(". ")
        fact = f"{name} keeps the bicycle in cabinet {number}"
        messages += [_message("user", f"{before}. {fact}. {after}"), _message("assistant", "Good.")]
    asked = chance.randrange(_HISTORY_TURNS - 2)
    question = f"In which cabinet is the bicycle of {names[asked]}?"
    return Recall(
        [*messages, _message("user", question)],
        f"{names[asked]} keeps the bicycle in cabinet {numbers[asked]}.",
    )


def _message(role: str, content: str) -> ChatMessage:
    return ChatMessage.model_validate({"role": role, "content": content})


def _paragraphs() -> list[str]:
    pieces = [" ".join(part.split()) for part in prose().split("\n\n")]
    return [
        piece[:_PARAGRAPH_CHARACTERS]
        for piece in pieces
        if len(piece) > _PARAGRAPH_CHARACTERS and ". " in piece[:200] and ">>>" not in piece
    ]
