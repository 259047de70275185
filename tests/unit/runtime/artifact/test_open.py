"""An artifact is what its manifest says in every byte, or it is refused by the file's name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runtime.artifact.conftest import MakeArtifact

from tidegate_runtime.artifact import open as opening
from tidegate_runtime.artifact.manifest import MANIFEST
from tidegate_runtime.artifact.open import describe_file, open_artifact
from tidegate_runtime.errors import ModelRefused


def refused(root: Path) -> ModelRefused:
    with pytest.raises(ModelRefused) as caught:
        open_artifact(root)
    return caught.value


def edit_manifest(root: Path, **fields: Any) -> None:
    path = root / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_whole_artifact_opens(artifact: MakeArtifact) -> None:
    root = artifact()
    found = open_artifact(root)
    assert (found.root, found.manifest.name) == (root, "tiny")
    assert found.weights.read_bytes() == b"w" * 1000


DAMAGE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "one bit": (lambda r: flip(r / "weights.safetensors", 999), "weights.safetensors", "digest"),
    "one bit of the config": (lambda r: flip(r / "config.json", 0), "config.json", "digest"),
    "cut": (
        lambda r: (r / "weights.safetensors").write_bytes(b"w" * 999),  # type: ignore[arg-type,return-value]
        "weights.safetensors",
        "999 bytes, and 1000 were expected",
    ),
    "longer": (
        lambda r: (r / "weights.safetensors").write_bytes(b"w" * 1001),  # type: ignore[arg-type,return-value]
        "weights.safetensors",
        "1001 bytes, and 1000 were expected",
    ),
    "gone": (lambda r: (r / "config.json").unlink(), "config.json", "missing"),
    "foreign": (lambda r: (r / "extra.json").touch(), "extra.json", "does not list it"),
    "no manifest": (lambda r: (r / MANIFEST).unlink(), MANIFEST, "missing"),
    "not JSON": (lambda r: flip(r / MANIFEST, 0), MANIFEST, "not a manifest"),
    "a wrong field": (lambda r: edit_manifest(r, tied="perhaps"), MANIFEST, "tied"),
    "lists a path": (
        lambda r: edit_manifest(r, files={"../x": {"bytes": 1, "sha256": "0"}}),
        MANIFEST,
        "does not list weights.safetensors",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_with_the_file_and_the_remedy(artifact: MakeArtifact, kind: str) -> None:
    root = artifact()
    damage, name, why = DAMAGE[kind]
    damage(root)
    error = refused(root)
    assert error.reason == "DamagedArtifact"
    assert str(root / name) in error.message
    assert why in error.message
    assert "build it again" in error.message


def test_the_refusal_says_which_digest_was_found_and_expected(artifact: MakeArtifact) -> None:
    root = artifact()
    flip(root / "weights.safetensors", 0)
    message = refused(root).message
    assert hashlib.sha256(b"w" * 1000).hexdigest() in message
    assert hashlib.sha256(b"v" + b"w" * 999).hexdigest() in message


def test_a_name_that_leaves_the_artifact_is_refused(artifact: MakeArtifact) -> None:
    root = artifact()
    files = json.loads((root / MANIFEST).read_text())["files"]
    (root.parent / "outside").write_bytes(b"x")
    entry = describe_file(root.parent / "outside").model_dump()
    edit_manifest(root, files={**files, "../outside": entry})
    assert "'../outside'" in refused(root).message


def test_a_link_is_refused_even_to_the_right_content(artifact: MakeArtifact) -> None:
    root = artifact()
    outside = root.parent / "outside"
    (root / "weights.safetensors").rename(outside)
    (root / "weights.safetensors").symlink_to(outside)
    assert "it is a link" in refused(root).message


@pytest.mark.parametrize("field", ["format", "packing"])
def test_another_format_is_refused_as_such(artifact: MakeArtifact, field: str) -> None:
    root = artifact()
    edit_manifest(root, **{field: 2})
    error = refused(root)
    assert error.reason == "UnknownFormat"
    assert "build it again" in error.message


def test_a_field_of_a_later_version_is_no_fault(artifact: MakeArtifact) -> None:
    root = artifact()
    edit_manifest(root, from_the_future=1)
    assert open_artifact(root).manifest.name == "tiny"


def test_a_large_file_is_verified_in_every_part(
    artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "PART_BYTES", 300)
    root = artifact()
    assert len(open_artifact(root).manifest.files["weights.safetensors"].parts) == 4
    for at in (0, 299, 300, 899, 999):
        flip(root / "weights.safetensors", at)
        assert f"bytes {at // 300 * 300} to " in refused(root).message
        flip(root / "weights.safetensors", at)
    edit_manifest(root)
    open_artifact(root)
