"""Which pieces of a prompt stay within a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """Something that may be left out of text number `text`: what it costs, what it is worth."""

    text: int
    content: str
    tokens: int
    value: float


def choose(pieces: Sequence[Piece], budget_tokens: int) -> list[Piece]:
    """The most valuable pieces that fit, in their order; of equals the later ones, for the end of a
    conversation is what it is about.
    """
    places = sorted(range(len(pieces)), key=lambda place: (-pieces[place].value, -place))
    chosen = []
    for place in places:
        if pieces[place].tokens <= budget_tokens:
            budget_tokens -= pieces[place].tokens
            chosen.append(place)
    return [pieces[place] for place in sorted(chosen)]


def joined(pieces: Sequence[Piece], texts: int) -> list[str]:
    """What is left of each of so many texts."""
    made = [""] * texts
    for piece in pieces:
        made[piece.text] += piece.content
    return [text.strip() for text in made]
