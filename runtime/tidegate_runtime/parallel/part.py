"""The decoder of one rank: it has a part of every weight, and computes with the others."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.models.operators import Operators
from tidegate_runtime.models.transformers import TransformersDecoder
from tidegate_runtime.ops.low_rank import LowRank
from tidegate_runtime.parallel.division import Division
from tidegate_runtime.parallel.group import Group
from tidegate_runtime.parallel.modules import connect


class PartDecoder(TransformersDecoder):
    """See `models.base.Decoder`. Every rank runs the same batches in the same order.

    Adapters are those of the whole model; this rank keeps its part of them.
    """

    def __init__(
        self, part: Division, group: Group, *, operators: Operators, kv: str, context_tokens: int
    ) -> None:
        super().__init__(
            part.config, part.weights, operators=operators, kv=kv, context_tokens=context_tokens
        )
        self._cut = part.cut
        connect(self.model, part, group)

    def adaptable(self) -> Mapping[str, tuple[int, int]]:
        """The (outputs, inputs) of the whole model's linears, by module name."""
        return {
            name: self._cut.whole_shape(name, *shape) for name, shape in super().adaptable().items()
        }

    def adapt(self, adapter_id: str, updates: Mapping[str, LowRank]) -> Adapter:
        """This rank's part of an adapter, from the updates of the whole model."""
        own = {name: self._cut.update(name, whole) for name, whole in updates.items()}
        return super().adapt(adapter_id, own)
