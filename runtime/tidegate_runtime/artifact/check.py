"""Which files may be loaded: a verdict on names and configurations before anything is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tidegate.spec import check_files
from tidegate.spec.source import PICKLED_SUFFIXES
from tidegate_runtime.errors import ModelRefused

CHECKED_CONFIGS = ("config.json", "tokenizer_config.json")


@dataclass(frozen=True)
class ModelFiles:
    """A directory that passed the check, and the GGUF file in it when that holds the weights."""

    root: Path
    gguf: Path | None = None


def check_path(path: Path) -> ModelFiles:
    """The model at `path`: a directory or one .gguf file.

    Raises ModelRefused (SourceNotFound, NotAModel, PickledWeights, RemoteCode).
    """
    if not path.exists():
        raise ModelRefused(
            "SourceNotFound",
            f"model source {str(path)!r} does not exist; give a directory with config.json and "
            ".safetensors files, or one .gguf file",
        )
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelRefused(
                _reason_of_file(path),
                f"model source {str(path)!r} is a file but not a .gguf file; give its directory, "
                "or weights as safetensors or GGUF",
            )
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelRefused(
                    "NotAModel",
                    f"model source {str(path)!r} does not start with the GGUF magic; the file is "
                    "broken or something else, fetch it again",
                )
        return ModelFiles(path.parent, path)
    names = [str(item.relative_to(path)) for item in path.rglob("*") if item.is_file()]
    configs = {name: read_config(path / name) for name in CHECKED_CONFIGS if (path / name).exists()}
    check_listing(str(path), names, configs)
    if any(name.endswith(".safetensors") for name in names) and "config.json" in names:
        return ModelFiles(path)
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    if ggufs:
        return check_path(path / ggufs[0])
    raise ModelRefused(
        "NotAModel",
        f"model source {str(path)!r} has its config.json or weights in a subdirectory; name the "
        "directory that holds both",
    )


def check_listing(
    source: str, names: Iterable[str], configs: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse a listing that is not a safe model. Raises ModelRefused."""
    listed = list(names)
    problem = check_files(listed, configs)
    if problem is not None:
        raise ModelRefused(
            _reason_of_listing(listed, configs, problem), f"model source {source!r}: {problem}"
        )


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object from a model's file. Raises ModelRefused (NotAModel) when it is not one."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelRefused(
            "NotAModel", f"{str(path)!r} is not JSON ({error}); fetch the model again"
        ) from error
    if not isinstance(value, dict):
        raise ModelRefused(
            "NotAModel", f"{str(path)!r} is not a JSON object; fetch the model again"
        )
    return value


def _reason_of_listing(
    names: list[str], configs: Mapping[str, Mapping[str, Any]], problem: str
) -> str:
    if any("auto_map" in config for config in configs.values()):
        return "RemoteCode"
    if "pickled" in problem and any(PurePosixPath(name).name == "config.json" for name in names):
        return "PickledWeights"
    return "NotAModel"


def _reason_of_file(path: Path) -> str:
    return "PickledWeights" if path.suffix.lower() in PICKLED_SUFFIXES else "NotAModel"
