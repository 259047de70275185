"""The weights of a directory of safetensors, one tensor at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tidegate_runtime.artifact.check import read_config
from tidegate_runtime.artifact.expert_files import ExpertLayout, layout_of
from tidegate_runtime.artifact.guard import guarded
from tidegate_runtime.artifact.memory import check_bytes_fit
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.experts import expert_stacks

_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_LAYER = re.compile(r"\.(?:layers|layer|h)\.(\d+)\.")


def stored_tensors(root: Path, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of `model` (an empty one) by state name.

    They stream from the files when these use the names of the state, or one of the layouts of
    experts that are known, tied copies aside; otherwise transformers, which knows the older names,
    loads the whole model. Raises ModelRefused.
    """
    places = guarded(root, lambda: places_of(root))
    check_layers(root, places, model.config)
    state = model.state_dict()
    stacks = expert_stacks(model)
    layout = layout_of(stacks, places) if stacks else None
    names = {name: name if layout is None else layout.name(name) for name in state}
    if layout is not None:
        for stack in stacks:
            names.pop(stack)
    missing = {name for name, stored in names.items() if stored not in places} - _tied(model)
    if missing and layout is None:
        yield from _loaded(root, model)
        return
    with StoredFiles(root, places) as files:
        for name, stored in sorted(names.items(), key=lambda item: str(places.get(item[1]))):
            if name not in missing and stored in places:
                yield name, files.read(stored)
        if layout is not None:
            for stack, shape in stacks.items():
                yield stack, _stack(files, layout, stack, shape)


def _stack(
    files: StoredFiles, layout: ExpertLayout, stack: str, shape: tuple[int, int, int]
) -> torch.Tensor:
    """`[experts, out, in]` from the weights of each. Raises ModelRefused."""
    count, out, inputs = shape
    experts = []
    for number in range(count):
        names = layout.parts(stack, number)
        parts = [files.read(name) for name in names]
        for name, part in zip(names, parts, strict=True):
            wanted = (out // len(parts), inputs)
            if tuple(part.shape) != wanted:
                raise misshapen(name, tuple(part.shape), wanted)
        experts.append(torch.cat(parts))
    return torch.stack(experts)


class StoredFiles:
    """Files of tensors, each opened once."""

    def __init__(self, root: Path, places: Mapping[str, Path]) -> None:
        self._root = root
        self._places = places
        self._open: dict[Path, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> StoredFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, name: str) -> torch.Tensor:
        """One tensor. Raises ModelRefused (BrokenModel) when no file has it."""
        path = self._places.get(name)
        if path is None:
            raise lacking(self._root, [name])
        if path not in self._open:
            self._open[path] = self._stack.enter_context(safe_open(path, framework="pt"))
        tensor: torch.Tensor = self._open[path].get_tensor(name)
        return tensor


def lacking(root: Path, names: Sequence[str]) -> ModelRefused:
    """The refusal of a model without these weights."""
    return ModelRefused(
        "BrokenModel",
        f"{str(root)!r} lacks {len(names)} weights that its architecture needs "
        f"({', '.join(names[:3])}); fetch the model again, or use one of the right kind",
    )


def check_unused(root: Path, names: Iterable[str], layers: int) -> None:
    """Refuse weights of layers that the configuration does not count: without them the model would
    be another. Raises ModelRefused (BrokenModel).
    """
    for name in sorted(names):
        found = _LAYER.search(name)
        if found and int(found[1]) >= layers:
            raise ModelRefused(
                "BrokenModel",
                f"{str(root)!r} has the weight {name!r}, and its configuration counts {layers} "
                "layers; fetch the model again",
            )


def check_layers(root: Path, names: Iterable[str], config: Any) -> None:
    """`check_unused` by what a configuration counts. Raises ModelRefused (BrokenModel)."""
    text = config.get_text_config()
    # Layers that guess further tokens come after those that are counted.
    guessing = int(getattr(text, "num_nextn_predict_layers", None) or 0)
    check_unused(root, names, int(text.num_hidden_layers) + guessing)


def weight_files(root: Path) -> list[Path]:
    """The files that hold the weights. Raises ModelRefused."""
    if (root / _INDEX).is_file():
        names = read_config(root / _INDEX).get("weight_map", {}).values()
        return sorted({root / name for name in names if Path(name).name == name})
    if (root / _WHOLE).is_file():
        return [root / _WHOLE]
    return sorted(root.glob("*.safetensors"))


def check_shapes(report: Mapping[str, Any]) -> None:
    """Refuse weights that have not the shapes of their configuration, by the report of transformers
    on its loading. Raises ModelRefused (BrokenModel).
    """
    for name, found, wanted in sorted(report["mismatched_keys"]):
        raise misshapen(name, tuple(found), tuple(wanted))


def misshapen(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> ModelRefused:
    """The refusal of one weight."""
    return ModelRefused(
        "BrokenModel",
        f"the weight {name!r} has the shape {list(found)}, and its configuration asks for "
        f"{list(wanted)}; fetch the model again",
    )


def places_of(root: Path) -> dict[str, Path]:
    """The file of each stored tensor, by its name."""
    found: dict[str, Path] = {}
    for path in weight_files(root):
        with safe_open(path, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    return found


def metadata_of(root: Path) -> dict[str, str]:
    """What the files of weights say of themselves, together."""
    found: dict[str, str] = {}
    for path in weight_files(root):
        with safe_open(path, framework="pt") as file:
            found |= file.metadata() or {}
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
            root,
            dtype="auto",
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        ),
    )
    check_shapes(report)
    # transformers fills what is missing with random numbers.
    if missing := sorted(report["missing_keys"]):
        raise lacking(root, missing)
    yield from loaded.state_dict().items()
