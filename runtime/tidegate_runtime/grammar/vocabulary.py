"""A model's tokens as grammars see them: the bytes of each, and which end a text."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

from tidegate_runtime.errors import RequestRefused


@dataclass(frozen=True)
class Vocabulary:
    """All that llguidance must know of a tokenizer. `text` is that of a tokenizer.json."""

    text: str
    size: int
    eos_tokens: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any, size: int, eos_tokens: Iterable[int]) -> Vocabulary:
        """That of a fast tokenizer, whose model gives `size` logits.

        Raises RequestRefused for a tokenizer that cannot be written down.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise RequestRefused(
                "This model's tokenizer has no tokenizer.json, which grammars need; ask without "
                "response_format and guided fields.",
                code="grammar_unsupported",
            )
        if backend.padding is not None or backend.truncation is not None:
            # A copy is read anew, which takes as long as the tokenizer took.
            backend = copy.copy(backend)
            backend.no_padding()
            backend.no_truncation()
        return cls(backend.to_str(), size, tuple(sorted(eos_tokens)))

    def message(self) -> bytes:
        """For a process that is to `receive` it: a line of JSON, then the text as it is.

        Megabytes of text as JSON would keep Python's lock for longer than a step takes.
        """
        text = self.text.encode()
        about = {"size": self.size, "eos_tokens": self.eos_tokens, "text_bytes": len(text)}
        return json.dumps(about).encode() + b"\n" + text

    @classmethod
    def receive(cls, stream: IO[bytes]) -> Vocabulary:
        """The vocabulary of a message."""
        about = json.loads(stream.readline())
        text = stream.read(about["text_bytes"]).decode()
        return cls(text, about["size"], tuple(about["eos_tokens"]))

    def open(self) -> Any:
        """llguidance's tokenizer. That takes a while with Python's lock, and starts no thread.

        Raises RequestRefused for a kind of tokenizer that it does not know.
        """
        import llguidance

        eos = list(self.eos_tokens) or None
        try:
            return llguidance.LLTokenizer(self.text, n_vocab=self.size, eos_token=eos)
        except (ValueError, RuntimeError) as error:
            raise RequestRefused(
                f"No grammar can be followed over this model's tokenizer ({error}); ask without "
                "response_format and guided fields.",
                code="grammar_unsupported",
            ) from error
