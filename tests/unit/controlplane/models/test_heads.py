"""Heads are read before they are planned for: what they say, and why they may not be served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_heads import digest_of, write_tiny_heads

from tidegate.protocol.resources import PlannedHeads
from tidegate_controlplane.domain.heads import Heads
from tidegate_controlplane.errors import Invalid
from tidegate_controlplane.models.heads import inspect_heads


async def test_heads_say_what_they_were_made_for(tmp_path: Path) -> None:
    path = write_tiny_heads(tmp_path / "heads", method="early_exit", exit_layer=3)
    planned = PlannedHeads(digest=digest_of(path), weights_bytes=7)
    assert await inspect_heads(str(path)) == Heads(planned, "early_exit", 3, 64, 10, "/models/tiny")


async def test_other_files_beside_them_change_nothing(tmp_path: Path) -> None:
    path = write_tiny_heads(tmp_path / "heads")
    before = await inspect_heads(str(path))
    (path / "notes.txt").write_text("made on a Tuesday")
    assert await inspect_heads(str(path)) == before


def _empty(path: Path) -> None:
    (path / "heads.json").unlink()


def _without_weights(path: Path) -> None:
    (path / "heads.safetensors").unlink()


def _cut(path: Path) -> None:
    (path / "heads.safetensors").write_bytes(b"weight")


def _said(**said: Any) -> Callable[[Path], Any]:
    return lambda path: write_tiny_heads(path, **said)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_empty, "holds no heads: there is no heads.json in it; give what tidegate distill wrote"),
        (_without_weights, "there is no heads.safetensors in it"),
        (_cut, "has 6 bytes, and its heads.json tells of 7; copy both again"),
        (_said(format=2), "format: it is 2, and 1 is read"),
        (_said(hidden="wide"), "does not describe heads: hidden: "),
        (_said(file=None), "does not describe heads: file: "),
        (lambda path: (path / "heads.json").write_text("{"), "make them again with tidegate"),
    ],
)
async def test_what_are_no_heads_is_refused(
    tmp_path: Path, harm: Callable[[Path], Any], words: str
) -> None:
    path = write_tiny_heads(tmp_path / "heads")
    harm(path)
    with pytest.raises(Invalid) as caught:
        await inspect_heads(str(path))
    (issue,) = caught.value.issues
    assert (issue.field, issue.value) == ("runtime.speculation.heads", str(path))
    assert words in issue.message
