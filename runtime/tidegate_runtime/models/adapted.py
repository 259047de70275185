"""Adapters on the linears of a model from transformers: hooks, for the steps that have some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.models.operators import Operators
from tidegate_runtime.ops.batch import StepBatch
from tidegate_runtime.ops.low_rank import LowRank
from tidegate_runtime.ops.packed import PackedLinear


@dataclass(frozen=True, eq=False)
class ModuleAdapter(Adapter):
    """An adapter on a model's device, in the precision that the model computes in."""

    updates: Mapping[str, LowRank]

    @classmethod
    def on(
        cls, operators: Operators, adapter_id: str, updates: Mapping[str, LowRank]
    ) -> ModuleAdapter:
        """Bring updates to the device."""
        device, dtype = operators.device, operators.dtype
        moved = {
            name: LowRank(update.down.to(device, dtype), update.up.to(device, dtype))
            for name, update in updates.items()
        }
        size = sum(update.down.nbytes + update.up.nbytes for update in moved.values())
        return cls(adapter_id, size, moved)


@dataclass(frozen=True)
class _Part:
    """The rows of a step that have the same update of one linear."""

    rows: torch.Tensor
    update: LowRank


def adaptable(model: Any, packed: Mapping[str, PackedLinear]) -> dict[str, tuple[int, int]]:
    """The (outputs, inputs) of a model's linears, but for those of experts.

    An expert sees some rows only, so that nobody knows there which adapter a row has.
    """
    found = {name: (linear.out, linear.inputs) for name, linear in packed.items()}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            found[name] = (module.out_features, module.in_features)
    return {name: shape for name, shape in found.items() if ".experts." not in name}


@contextmanager
def adapted(model: Any, batch: StepBatch) -> Iterator[None]:
    """Let the linears of `model` add the updates of a batch's adapters inside the block, before
    other hooks see what they give.

    The last layer sees the wanted rows only.
    """
    parts: dict[torch.nn.Module, list[_Part]] = {}
    head, wanted = model.get_output_embeddings(), batch.wanted.tolist()
    for adapter, rows in _rows(batch).items():
        for name, update in adapter.updates.items():
            module = model.get_submodule(name)
            seen = _places(rows, wanted) if module is head else rows
            place = torch.tensor(seen, dtype=torch.long, device=update.down.device)
            parts.setdefault(module, []).append(_Part(place, update))
    hooks = [
        module.register_forward_hook(partial(_add, found), prepend=True)
        for module, found in parts.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _rows(batch: StepBatch) -> dict[ModuleAdapter, list[int]]:
    """The rows of every adapter of a step."""
    rows: dict[ModuleAdapter, list[int]] = {}
    for sequence, adapter in enumerate(batch.adapters):
        if isinstance(adapter, ModuleAdapter):
            first, end = batch.starts[sequence : sequence + 2].tolist()
            rows.setdefault(adapter, []).extend(range(first, end))
    return rows


def _places(rows: list[int], wanted: list[int]) -> list[int]:
    """Where rows are among the wanted ones."""
    ours = set(rows)
    return [place for place, row in enumerate(wanted) if row in ours]


def _add(
    parts: list[_Part], module: torch.nn.Module, given: tuple[torch.Tensor], output: torch.Tensor
) -> torch.Tensor:
    """Add updates to an output `[1, rows, out]` of inputs `[1, rows, in]`."""
    del module
    for part in parts:
        inner = torch.nn.functional.linear(given[0][:, part.rows], part.update.down)
        output[:, part.rows] += torch.nn.functional.linear(inner, part.update.up)
    return output
