"""The weights of a directory of safetensors, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tidegate_runtime.artifact.check import read_config
from tidegate_runtime.artifact.guard import guarded
from tidegate_runtime.artifact.memory import check_bytes_fit
from tidegate_runtime.errors import ModelRefused

_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"


def stored_tensors(root: Path, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of `model` (an empty one) by state name.

    They stream from the files when these use the names of the state, tied copies aside; otherwise
    transformers, which knows the older names, loads the whole model. Raises ModelRefused.
    """
    places = guarded(root, lambda: _places(root))
    wanted = set(model.state_dict())
    missing = wanted - set(places) - _tied(model)
    if missing:
        yield from _loaded(root, model)
        return
    files: dict[Path, list[str]] = {}
    for name in wanted & set(places):
        files.setdefault(places[name], []).append(name)
    for path, names in files.items():
        with safe_open(path, framework="pt") as file:
            for name in sorted(names):
                yield name, file.get_tensor(name)


def weight_files(root: Path) -> list[Path]:
    """The files that hold the weights. Raises ModelRefused."""
    if (root / _INDEX).is_file():
        names = read_config(root / _INDEX).get("weight_map", {}).values()
        return sorted({root / name for name in names if Path(name).name == name})
    if (root / _WHOLE).is_file():
        return [root / _WHOLE]
    return sorted(root.glob("*.safetensors"))


def _places(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in weight_files(root):
        with safe_open(path, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    return found


def _tied(model: Any) -> set[str]:
    """State names whose tensor is in the state under another name too: a file needs one of them."""
    kept: dict[int, str] = {}
    tied: set[str] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in kept:
            tied |= {name, kept[id(tensor)]}
        kept.setdefault(id(tensor), name)
    return tied


def _loaded(root: Path, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    check_bytes_fit(str(root), sum(path.stat().st_size for path in weight_files(root)))
    loaded, report = guarded(
        root,
        lambda: type(model).from_pretrained(
            root, dtype="auto", use_safetensors=True, output_loading_info=True
        ),
    )
    # transformers fills what is missing with random numbers.
    if missing := sorted(report["missing_keys"]):
        raise ModelRefused(
            "BrokenModel",
            f"{str(root)!r} lacks {len(missing)} weights that its architecture needs "
            f"({', '.join(missing[:3])}); fetch the model again, or use one of the right kind",
        )
    yield from loaded.state_dict().items()
