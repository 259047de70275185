"""The ranks that run one model together: sums and gatherings over torch.distributed.

Gloo between processes on processors, NCCL between GPUs, both on one machine. The NCCL half has not
been run: it is the same calls with another process group.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tidegate_runtime.errors import EngineDead

_PATIENCE = timedelta(seconds=300)
"""For a rank that lives and does not come; one that died is noticed at once."""


class Group:
    """Every rank calls the same methods in the same order, with tensors of the same shape.

    All raise EngineDead when another rank is gone.
    """

    def __init__(self, process_group: Any, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self._process_group = process_group

    def sum(self, part: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in the memory of `part`."""
        try:
            self._process_group.allreduce([part]).wait()
        except RuntimeError as error:
            raise self._lost(error) from error
        return part

    def gather(self, part: torch.Tensor) -> list[torch.Tensor]:
        """On rank 0 the parts of all ranks in their order; elsewhere none."""
        options = dist.GatherOptions()
        options.rootRank = 0
        parts = [torch.empty_like(part) for _ in range(self.size)] if self.rank == 0 else []
        try:
            given = [parts] if self.rank == 0 else []
            self._process_group.gather(given, [part], options).wait()
        except RuntimeError as error:
            raise self._lost(error) from error
        return parts

    def _lost(self, error: RuntimeError) -> EngineDead:
        return EngineDead(
            f"rank {self.rank} lost another of the {self.size} processes that run this model "
            f"({str(error).splitlines()[0]})"
        )


def join(rendezvous: Path, rank: int, size: int, device: torch.device) -> Group:
    """Meet the others, who name the same file, which none of them has made. Blocks until all are
    there; the file is of no use then. Raises EngineDead.
    """
    store = dist.FileStore(str(rendezvous), size)  # type: ignore[attr-defined]
    if device.type == "cuda":
        torch.cuda.set_device(device)
        options = dist.ProcessGroupNCCL.Options()
        made: Any = dist.ProcessGroupNCCL(store, rank, size, options)
    else:
        # By the name of the host, which need not be known to any resolver, Gloo may find nothing.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        made = dist.ProcessGroupGloo(store, rank, size, _PATIENCE)
    group = Group(made, rank, size)
    group.sum(torch.zeros(1, device=device))
    return group
