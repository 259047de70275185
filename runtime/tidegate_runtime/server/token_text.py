"""The text and the bytes of single tokens, for log probabilities."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTE_TOKEN = re.compile(r"^<0x([0-9A-Fa-f]{2})>$")
_BYTE_OF = {text: byte for byte, text in bytes_to_unicode().items()}


class TokenText:
    """Looks single tokens up. A token may be part of a character, so its bytes are the truth."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.bytes = lru_cache(maxsize=65536)(self._bytes)

    def text(self, token: int) -> str:
        """The token as text; bytes that are no whole character become U+FFFD."""
        return self.bytes(token).decode(errors="replace")

    def _bytes(self, token: int) -> bytes:
        text = str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))
        piece = str(self._tokenizer.convert_ids_to_tokens(token))
        if match := _BYTE_TOKEN.match(piece):
            return bytes.fromhex(match[1])
        if "\ufffd" in text and all(letter in _BYTE_OF for letter in piece):
            return bytes(_BYTE_OF[letter] for letter in piece)
        if piece.startswith("\u2581") and not text.startswith(" "):
            return f" {text}".encode()
        return text.encode()
