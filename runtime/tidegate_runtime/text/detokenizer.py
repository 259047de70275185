"""Tokens become text as they arrive, without ever splitting a character."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any, Protocol

from tokenizers import decoders
from transformers.convert_slow_tokenizer import bytes_to_unicode

_UNFINISHED = "\ufffd"
_LONGEST_HOLD_TOKENS = 8
_BYTE_OF = {letter: byte for byte, letter in bytes_to_unicode().items()}


class Detokenizer(Protocol):
    """Incremental decoding of one sequence's generated tokens. Special tokens give no text."""

    def push(self, token: int) -> str:
        """Take one token; return the text it completes, often empty."""

    def finish(self) -> str:
        """The text that was still held back; broken characters as U+FFFD."""


def detokenizer_of(tokenizer: Any) -> Callable[[], Detokenizer]:
    """What makes a detokenizer for each sequence: by bytes where the tokenizer's tokens are bytes,
    else by decoding a window of tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and isinstance(backend.decoder, decoders.ByteLevel):
        pieces = BytePieces(backend)
        return lambda: ByteDetokenizer(pieces)
    return lambda: WindowDetokenizer(tokenizer)


class BytePieces(dict[int, bytes]):
    """The bytes of each token of a byte-level tokenizer (GPT-2's), found once and kept.

    A letter stands for a byte; an added token that holds other letters stands for itself.
    """

    def __init__(self, backend: Any) -> None:
        super().__init__()
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        self._special = {token for token, entry in added.items() if entry.special}

    def __missing__(self, token: int) -> bytes:
        piece = None if token in self._special else self._backend.id_to_token(token)
        self[token] = b"" if piece is None else _bytes_of(piece)
        return self[token]


class ByteDetokenizer:
    """Joins the bytes of tokens; UTF-8's own decoder holds back an unfinished character."""

    def __init__(self, pieces: BytePieces) -> None:
        self._pieces = pieces
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._utf8.decode(self._pieces[token])

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class WindowDetokenizer:
    """Decodes only the tokens since the last complete piece, and the piece before it for context.

    A tokenizer may merge or drop a space at the start of a text, hence the context. A character
    takes at most four bytes, so text that still ends in U+FFFD after eight tokens really is broken.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._context_tokens = 0
        self._context_text = ""

    def push(self, token: int) -> str:
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith(_UNFINISHED) and not self._holds_too_long:
            return ""
        return self._take(text)

    def finish(self) -> str:
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


def _bytes_of(piece: str) -> bytes:
    try:
        return bytes(_BYTE_OF[letter] for letter in piece)
    except KeyError:
        return piece.encode()
