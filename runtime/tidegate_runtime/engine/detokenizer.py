"""Tokens become text as they arrive, without ever splitting a character."""

from __future__ import annotations

from typing import Any

_UNFINISHED = "\ufffd"
_LONGEST_HOLD_TOKENS = 8


class Detokenizer:
    """Incremental decoding of one sequence's generated tokens.

    Each push decodes only the tokens since the last complete piece, and the piece before it for
    context (a tokenizer may merge or drop a space at the start of a text). A character takes at
    most four bytes, so text that still ends in U+FFFD after eight tokens really is broken.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._context_tokens = 0
        self._context_text = ""

    def push(self, token: int) -> str:
        """Take one token; return the text it completes, often empty."""
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith(_UNFINISHED) and not self._holds_too_long:
            return ""
        return self._take(text)

    def finish(self) -> str:
        """The text that was still held back; broken characters as U+FFFD."""
        return self._take(self._decode(self._window))

    @property
    def _holds_too_long(self) -> bool:
        return len(self._window) - self._context_tokens >= _LONGEST_HOLD_TOKENS

    def _take(self, text: str) -> str:
        new = text[len(self._context_text) :]
        if not new and not self._holds_too_long:
            return ""
        self._window = self._window[self._context_tokens :]
        self._context_tokens = len(self._window)
        self._context_text = self._decode(self._window)
        return new

    def _decode(self, tokens: list[int]) -> str:
        return str(
            self._tokenizer.decode(
                tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
