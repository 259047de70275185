"""The experts of a mixture (Shazeer et al. 2017), each a gated feed-forward over packed weights.

transformers keeps the experts of a layer in two stacks, `gate_up_proj` `[experts, 2 * inner,
hidden]` and `down_proj` `[experts, hidden, inner]`. An artifact holds every expert of a stack as a
linear of its own, `<stack>.<number>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from tidegate_runtime.errors import ModelRefused

GATE_UP, DOWN = "gate_up_proj", "down_proj"


def expert_name(stack: str, number: int) -> str:
    """The name of one expert's linear."""
    return f"{stack}.{number}"


def expert_stacks(model: Any) -> dict[str, tuple[int, int, int]]:
    """State name of each stack of a model from transformers → `(experts, out, in)`.

    Raises ModelRefused (UnsupportedModel) for experts that are no plain gated feed-forward.
    """
    found = {}
    for name, module in model.named_modules():
        if not hasattr(module, "is_concatenated"):  # which every module of experts has
            continue
        stacks = dict(module.named_parameters(recurse=False))
        if not _is_plain(module) or set(stacks) != {GATE_UP, DOWN}:
            raise ModelRefused(
                "UnsupportedModel",
                f"{type(model).__name__}: the experts {name!r} are no plain gated feed-forward, "
                "which is not honoured; use a mixture like Mixtral or Qwen3-MoE",
            )
        for part, weight in stacks.items():
            found[f"{name}.{part}"] = (weight.shape[0], weight.shape[1], weight.shape[2])
    return found


class PackedExperts(torch.nn.Module):
    """What replaces a module of experts. A row's result does not depend on its company: its experts
    add up in the order of their numbers.
    """

    def __init__(
        self, gate_up: Sequence[torch.nn.Module], down: Sequence[torch.nn.Module], gate: Any
    ) -> None:
        super().__init__()
        self._gate_up = torch.nn.ModuleList(gate_up)
        self._down = torch.nn.ModuleList(down)
        self._gate = gate

    def forward(
        self, hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        """`hidden` `[rows, hidden]`, and `[rows, k]` the experts chosen for each and their shares
        → `[rows, hidden]`.
        """
        total = torch.zeros_like(hidden)
        for number in torch.unique(chosen).tolist():
            rows, places = (chosen == number).nonzero(as_tuple=True)
            gated = self._gate(self._gate_up[number](hidden[rows]))
            made = self._down[number](gated) * shares[rows, places].unsqueeze(-1)
            total.index_add_(0, rows, made.to(total.dtype))
        return total


def packed_experts(
    model: Any, stacks: Mapping[str, Sequence[torch.nn.Module]]
) -> Iterator[tuple[str, PackedExperts]]:
    """For each module of experts of `model` its name and what replaces it; `stacks` holds the
    linears of every stack by state name.
    """
    for stack, gate_up in stacks.items():
        name, _, part = stack.rpartition(".")
        if part == GATE_UP:
            module = model.get_submodule(name)
            down = stacks[f"{name}.{DOWN}"]
            yield name, PackedExperts(gate_up, down, module._apply_gate)


def _is_plain(module: Any) -> bool:
    kind = ("has_gate", "has_bias", "has_post_expert_norm", "is_transposed", "is_concatenated")
    return [getattr(module, name) for name in kind] == [True, False, False, False, True]
