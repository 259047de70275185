"""Where a model comes from, and which files may be in it. Pure: names in, a verdict out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

_S3 = re.compile(r"^s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>.+)$")
_HUB = re.compile(r"^hf://(?P<repo>[\w.-]+/[\w.-]+)$")
DIGEST_IGNORES = (".md", ".gitattributes", ".png", ".jpg")
"""Files that change nothing about a model, so that its digest does not either."""
PICKLED_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


class SourceKind(StrEnum):
    PATH = "path"
    S3 = "s3"
    HUB = "hf"


@dataclass(frozen=True)
class ModelSource:
    """A parsed source. `location` is a path, a `bucket/key` or an `org/name`."""

    kind: SourceKind
    location: str
    revision: str | None = None

    @property
    def is_gguf(self) -> bool:
        """Whether the source names one GGUF file rather than a directory of files."""
        return self.location.lower().endswith(".gguf")


def parse_source(text: str, revision: str | None = None) -> ModelSource:
    """Read a source; raise ValueError that names the value and the remedy when it is not one."""
    if "://" not in text:
        source = ModelSource(SourceKind.PATH, text)
    elif match := _S3.match(text):
        source = ModelSource(SourceKind.S3, f"{match['bucket']}/{match['key'].rstrip('/')}")
    elif match := _HUB.match(text):
        return ModelSource(SourceKind.HUB, match["repo"], revision)
    else:
        raise ValueError(
            f"source: {text!r} is not a model source; use a directory, a .gguf file, "
            "s3://bucket/prefix or hf://org/name"
        )
    if revision is not None:
        raise ValueError(
            f"revision: {revision!r} has no meaning for {text!r}; only hf:// sources have revisions"
        )
    return source


def model_digest(files: Iterable[tuple[str, int, str]]) -> str:
    """One digest over `(name, size in bytes, fingerprint)` of every file that matters.

    A fingerprint is any text that changes when the file's content does; what it is depends on the
    place that holds the file.
    """
    digest = hashlib.sha256()
    for name, size, fingerprint in sorted(files):
        if not name.lower().endswith(DIGEST_IGNORES):
            digest.update(f"{name}\0{size}\0{fingerprint}\n".encode(errors="surrogateescape"))
    return f"sha256:{digest.hexdigest()}"


def check_files(names: Iterable[str], configs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why a directory of files is not a model that may be served; None when it is.

    `names` are the file names relative to the model's root, `configs` the parsed `config.json` and
    `tokenizer_config.json` where present. Weights are safetensors or GGUF only; never a pickle,
    never remote code.
    """
    paths = [PurePosixPath(name) for name in names]
    ggufs = sorted(str(path) for path in paths if path.suffix.lower() == ".gguf")
    if len(ggufs) > 1:
        return f"it holds {len(ggufs)} GGUF files ({', '.join(ggufs[:3])}); name the one to serve"
    for name, config in configs.items():
        if "auto_map" in config:
            return (
                f"its {name} has 'auto_map', which runs code from the model's author; Tidegate "
                "never runs remote code: use a model whose architecture transformers knows"
            )
    if ggufs:
        return None
    if not any(path.name == "config.json" for path in paths):
        return "it is not a model: there is no config.json and no .gguf file in it"
    if any(path.suffix == ".safetensors" for path in paths):
        return None
    pickled = sorted(str(path) for path in paths if path.suffix in PICKLED_SUFFIXES)
    if pickled:
        return (
            f"its weights are pickled ({pickled[0]}), and a pickle can run any code; convert them "
            "to safetensors, for instance with save_pretrained(..., safe_serialization=True)"
        )
    return "it has a config.json but no weights: there is no .safetensors and no .gguf file in it"
