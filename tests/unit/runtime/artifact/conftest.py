"""Artifacts in every byte but for a model in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate_runtime.artifact.manifest import (
    FORMAT,
    MANIFEST,
    PACKING,
    Manifest,
    MemoryEntry,
    SourceEntry,
)
from tidegate_runtime.artifact.open import describe_file

MakeArtifact = Callable[..., Path]


def fill_artifact(directory: Path, content: bytes = b"w" * 1000) -> None:
    """Write the files of an artifact into an empty directory."""
    (directory / "weights.safetensors").write_bytes(content)
    (directory / "config.json").write_text("{}")
    manifest = Manifest(
        format=FORMAT,
        packing=PACKING,
        precision="int8",
        name="tiny",
        source=SourceEntry(location="/models/tiny", digest="sha256:one", kind="safetensors"),
        architecture="LlamaForCausalLM",
        context_tokens=64,
        tied=True,
        linears={},
        files={path.name: describe_file(path) for path in sorted(directory.iterdir())},
        weights_bytes=len(content),
        memory=MemoryEntry(weights=len(content), activations=1, kv_per_token={"bf16": 4}),
        tidegate="0",
        transformers="0",
        created="now",
    )
    (directory / MANIFEST).write_text(manifest.model_dump_json(by_alias=True))


@pytest.fixture
def artifact(tmp_path: Path) -> MakeArtifact:
    """Make an artifact of one weights file with this content."""

    def make(name: str = "made", content: bytes = b"w" * 1000) -> Path:
        root = tmp_path / name
        root.mkdir()
        fill_artifact(root, content)
        return root

    return make
