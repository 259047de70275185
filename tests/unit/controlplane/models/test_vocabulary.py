"""The tokens of a model are the same ones in whatever file they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.controlplane.models.conftest import MakeDirectory, MakeGguf

from tidegate.spec import ModelSpec
from tidegate_controlplane.models.inspect import inspect
from tidegate_controlplane.models.vocabulary import digest_of_gguf, tokens_digest

TOKENS = [f"t{number}" for number in range(10)]
"""Those of the GGUF file."""
VOCABULARY = {text: number for number, text in enumerate(TOKENS[:8])}
ADDED = [{"id": 8, "content": "t8", "special": True}, {"id": 9, "content": "t9"}]


async def unknown(digest: str) -> None:
    """Nothing was read before."""


async def digest(source: Path) -> str | None:
    return (await inspect(ModelSpec(source=str(source)), unknown)).facts.tokens_digest


def tokenizer(vocabulary: Any, added: Any) -> str:
    return json.dumps({"added_tokens": added, "model": {"vocab": vocabulary}})


@pytest.mark.parametrize(
    ("vocabulary", "added"),
    [
        (VOCABULARY, ADDED),
        (dict(reversed(VOCABULARY.items())), ADDED),
        ([[text, -1.0] for text in TOKENS], [ADDED[1]]),
        ([[text, 0.5] for text in TOKENS], None),
    ],
    ids=["mapping", "any order", "scores", "nothing added"],
)
async def test_a_tokenizer_and_a_gguf_file_of_the_same_tokens_agree(
    directory: MakeDirectory, gguf: MakeGguf, vocabulary: Any, added: Any
) -> None:
    path = directory()
    (path / "tokenizer.json").write_text(tokenizer(vocabulary, added))
    assert await digest(path) == await digest(gguf()) == tokens_digest(enumerate(TOKENS))


async def test_a_token_more_or_in_another_place_is_another_vocabulary(
    directory: MakeDirectory,
) -> None:
    path, found = directory(), set()
    swapped = {**VOCABULARY, "t0": 1, "t1": 0}
    for vocabulary, added in ((VOCABULARY, ADDED), (VOCABULARY, ADDED[:1]), (swapped, ADDED)):
        (path / "tokenizer.json").write_text(tokenizer(vocabulary, added))
        found.add(await digest(path))
    assert len(found) == 3


async def test_a_model_without_a_tokenizer_that_is_read_here_tells_no_tokens(
    directory: MakeDirectory,
) -> None:
    path = directory()
    assert await digest(path) is None
    for text in (
        "no JSON",
        "[]",
        '{"model": {}}',
        '{"model": {"vocab": 7}}',
        '{"model": {"vocab": [7]}}',
    ):
        (path / "tokenizer.json").write_text(text)
        assert await digest(path) is None


def test_the_padding_of_a_gguf_file_is_no_token() -> None:
    padded = ["a", "b", "[PAD2]", "[PAD3]"]
    assert digest_of_gguf(padded, [1, 1, 5, 5]) == tokens_digest([(0, "a"), (1, "b")])
    assert digest_of_gguf(padded, [1, 1, 1, 5]) != tokens_digest([(0, "a"), (1, "b")])
    unused = ["a", "<unused>"]
    assert digest_of_gguf(unused, [1, 5]) == tokens_digest(enumerate(unused))
    assert digest_of_gguf(padded, None) == tokens_digest(enumerate(padded))
