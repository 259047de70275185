"""The files of heads that are whole, and never run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

MANIFEST = {
    "format": 1,
    "method": "medusa",
    "exit_layer": None,
    "levels": 2,
    "hidden": 64,
    "vocabulary": 10,
    "shortlist": 10,
    "epsilon": 1e-6,
    "model": "/models/tiny",
    "model_digest": "sha256:tiny",
    "precision": "int8",
    "text": "text",
    "trained_tokens": 1,
    "acceptance": [],
    "untrained_acceptance": [],
}


def write_tiny_heads(path: Path, weights: bytes = b"weights", **said: Any) -> Path:
    """Make the directory `path`, or write it anew: for the model of `write_tiny_model`."""
    path.mkdir(exist_ok=True)
    (path / "heads.safetensors").write_bytes(weights)
    entry = {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    (path / "heads.json").write_text(json.dumps({**MANIFEST, "file": entry, **said}))
    return path


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256((path / 'heads.json').read_bytes()).hexdigest()}"
