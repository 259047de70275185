"""The experts of a mixture as their author published them: a weight for each expert and projection.

    Mixtral   <layer>.block_sparse_moe.experts.<number>.w1, w3 (gate, up) and w2 (down)
    Qwen      <layer>.mlp.experts.<number>.gate_proj, up_proj and down_proj

transformers stacks them as they are loaded (see models/experts.py), all of a model at once; here
one stack is made at a time. Any other layout is left to transformers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tidegate_runtime.models.experts import DOWN, GATE_UP

_MODULE = ".mlp."
"""What the module around the experts is called in the state of a model."""


@dataclass(frozen=True)
class ExpertLayout:
    """What a checkpoint calls the module around the experts, and their projections."""

    module: str
    gate_up: tuple[str, str]
    down: str

    def parts(self, stack: str, number: int) -> tuple[str, ...]:
        """The weights of one expert of a stack: one after another they are its rows."""
        module, _, kind = self.name(stack).rpartition(".")
        names = {GATE_UP: self.gate_up, DOWN: (self.down,)}[kind]
        return tuple(f"{module}.{number}.{name}.weight" for name in names)

    def name(self, state: str) -> str:
        """What the checkpoint calls a tensor of the state."""
        return state.replace(_MODULE, self.module)


_LAYOUTS = (
    ExpertLayout(".block_sparse_moe.", ("w1", "w3"), "w2"),
    ExpertLayout(_MODULE, ("gate_proj", "up_proj"), "down_proj"),
)


def layout_of(stacks: Collection[str], names: Collection[str]) -> ExpertLayout | None:
    """How files with these tensors hold the experts; None in a way that is not known here."""
    first = min(stacks)
    return next(
        (layout for layout in _LAYOUTS if any(part in names for part in layout.parts(first, 0))),
        None,
    )
