"""Which tokens a model knows, as one digest: models with the same one can guess for each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidegate_controlplane.models.source import ModelFiles

TOKENIZER = "tokenizer.json"
TOKENIZER_BYTES = 128 * 1024 * 1024
UNUSED = 5
"""The type of a GGUF token that stands for none: the last layer of some models has more rows than
there are tokens."""


def tokens_digest(tokens: Iterable[tuple[int, str]]) -> str:
    """Over each token's number and text, in any order."""
    digest = hashlib.sha256()
    for number, text in sorted(set(tokens)):
        digest.update(f"{number}\0{text}\n".encode(errors="surrogatepass"))
    return f"sha256:{digest.hexdigest()}"


def digest_of_tokenizer(files: ModelFiles, listing: Mapping[str, int]) -> str | None:
    """From `tokenizer.json`; None when there is none that can be read.

    Raises SourceError when the place cannot be read.
    """
    if TOKENIZER not in listing:
        return None
    try:
        said = json.loads(files.read(TOKENIZER, 0, TOKENIZER_BYTES))
        added = [(int(one["id"]), str(one["content"])) for one in said.get("added_tokens") or ()]
        return tokens_digest([*_vocabulary(said["model"]["vocab"]), *added])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None  # whether it can be served without is for the replica to say


def digest_of_gguf(tokens: Sequence[str], types: Sequence[int] | None) -> str:
    """From the metadata of a GGUF file; the padding that its converter adds is no token."""
    kinds = types or [0] * len(tokens)
    known = zip(tokens, kinds, strict=True)
    return tokens_digest(
        (number, text)
        for number, (text, kind) in enumerate(known)
        if not (kind == UNUSED and text == f"[PAD{number}]")
    )


def _vocabulary(vocabulary: Any) -> list[tuple[int, str]]:
    """A mapping of texts to numbers, or (Unigram) a list of texts and scores."""
    if isinstance(vocabulary, dict):
        return [(int(number), str(text)) for text, number in vocabulary.items()]
    return [(number, str(entry[0])) for number, entry in enumerate(vocabulary)]
