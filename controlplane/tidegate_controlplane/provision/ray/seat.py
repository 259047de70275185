"""The actor that holds a replica's CPUs, memory and GPUs on the node that Ray chose for it.

It does nothing else: the replica is a process of that node's agent, which ends it when the seat's
process ends. So Ray's books and what really runs agree, and a node imports the runtime once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a seat is."""

    node_id: str
    pid: int
    """Of the seat's process."""
    gpus: tuple[str, ...]
    """What of the node's GPUs is the replica's, as CUDA_VISIBLE_DEVICES names them."""


class Seat:
    """The actor's class."""

    def place(self) -> Place:
        """Answered once Ray has found room."""
        import ray

        gpus = tuple(str(gpu) for gpu in ray.get_gpu_ids())
        return Place(ray.get_runtime_context().get_node_id(), os.getpid(), gpus)
