"""What of a request may be cut, and the request with that cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tidegate.protocol.openai import ChatMessage
from tidegate_runtime.context.compressor import Cuttable
from tidegate_runtime.context.segments import sentences

EMPTIED = "…"
"""What stands for a message of which nothing is left: templates want their turns."""
_TAIL_CHARACTERS = 160
_PLAIN = frozenset({"role", "content", "name"})


def cuttable_chat(
    messages: Sequence[ChatMessage], count: Callable[[Sequence[ChatMessage]], int]
) -> Cuttable:
    """What users and the assistant said before the last question.

    Instructions, the last question and what follows it are whole, and so is every message that has
    more to it than a text, such as a call of a tool. `count` says how many tokens messages have.
    """
    places = _cuttable_places(messages)
    question = _last_question(messages)
    return Cuttable(
        texts=[messages[place].text for place in places],
        question=messages[question].text if question is not None else "",
        count=lambda texts: count(with_texts(messages, texts)),
        field="messages",
    )


def with_texts(messages: Sequence[ChatMessage], texts: Sequence[str]) -> list[ChatMessage]:
    """The messages with these texts where they may be cut."""
    made = list(messages)
    for place, text in zip(_cuttable_places(messages), texts, strict=True):
        if text != made[place].text:
            made[place] = made[place].model_copy(update={"content": text or EMPTIED})
    return made


def cuttable_prompt(prompt: str, count: Callable[[str], int]) -> Cuttable:
    """A text but for its end, which is what is continued."""
    head, tail = split_tail(prompt)
    return Cuttable(
        texts=[head],
        question=tail,
        count=lambda texts: count(texts[0] + tail),
        field="prompt",
    )


def split_tail(prompt: str) -> tuple[str, str]:
    """A text without its last sentences, and these: as many as make about two lines."""
    pieces = [segment.text for segment in sentences(prompt)]
    kept = 0
    while pieces and kept < _TAIL_CHARACTERS:
        kept += len(pieces.pop())
    return prompt[: len(prompt) - kept], prompt[len(prompt) - kept :]


def _cuttable_places(messages: Sequence[ChatMessage]) -> list[int]:
    question = _last_question(messages)
    end = len(messages) if question is None else question
    return [
        place
        for place, message in enumerate(messages[:end])
        if message.role in ("user", "assistant") and message.model_fields_set <= _PLAIN
    ]


def _last_question(messages: Sequence[ChatMessage]) -> int | None:
    users = [place for place, message in enumerate(messages) if message.role == "user"]
    return users[-1] if users else None
