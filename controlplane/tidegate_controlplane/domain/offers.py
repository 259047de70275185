"""Which machine of the catalogue a replica runs on: the cheapest that fits, and why others do not.

Each offer is one machine. A replica takes whole GPUs of it, or one slice of a GPU where GPUs are
divided, or, when no GPU is asked for, a machine without any.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.offers import Covers, Gpu, MigSlice, Offer
from tidegate.spec import GpuSpec, Precision
from tidegate_controlplane.domain.size import size

UTILISATION = 0.9
"""Of a memory that weights and KV cache may take. The rest is for CUDA's context and kernels, the
activations of a step and fragmentation; on a machine without GPUs, for its system and agents. vLLM
plans with 0.9 too (`gpu_memory_utilization`)."""
DIVIDED = frozenset({Covers.EC2})
"""Where a machine's owner may divide its GPUs: SageMaker hosts on whole ones."""


@dataclass(frozen=True)
class Need:
    """What one replica wants of a machine, and which machines may be looked at."""

    memory_bytes: int
    """Weights, the smallest KV cache that will do, and the process."""
    precision: Precision
    gpu: GpuSpec | None
    """None: a machine without GPUs."""
    covers: Covers
    region: str
    host_bytes: int = 1
    """Of the machine's own memory, beside that of a GPU."""
    threads: int = 1
    """Of processors."""
    replicas: int = 1
    """That are always there; what is paid for is paid for them."""
    spot: bool = False

    @property
    def gpus(self) -> int:
        return self.gpu.count if self.gpu else 0


@dataclass(frozen=True)
class Fit:
    """How replicas would lie on the machines of an offer."""

    offer: Offer
    usd_per_hour: float
    """Of one machine, on demand or spot as was asked."""
    usable_bytes: int
    """For one replica."""
    each: int
    """Replicas that one machine has room for."""
    machines: int
    """For the replicas that are always there."""
    slice: MigSlice | None = None
    bandwidth_bytes_per_s: float | None = None
    """Of the memory that one replica reads."""

    @property
    def cost(self) -> tuple[float, float, str]:
        """What offers are ranked by: the bill, then a replica's share of a machine."""
        share = self.usd_per_hour / self.each
        return self.machines * self.usd_per_hour, share, self.offer.instance_type


@dataclass(frozen=True)
class Misfit:
    offer: Offer
    reason: str


@dataclass(frozen=True)
class Ranking:
    """Every offer that was looked at."""

    fits: tuple[Fit, ...]
    """The best one first."""
    misfits: tuple[Misfit, ...]
    """Cheapest first."""


def rank(need: Need, offers: Iterable[Offer]) -> Ranking:
    """Judge the offers of the place that is asked for."""
    fits, misfits = [], []
    for offer in sorted(offers, key=lambda each: (each.usd_per_hour, each.instance_type)):
        if (offer.covers, offer.region) != (need.covers, need.region):
            continue
        found = _judge(need, offer)
        if isinstance(found, Fit):
            fits.append(found)
        else:
            misfits.append(Misfit(offer, found))
    return Ranking(tuple(sorted(fits, key=lambda fit: fit.cost)), tuple(misfits))


Way = tuple[int, int, MigSlice | None, float | None]
"""Usable bytes for one replica, replicas on one machine, the slice, and its bandwidth."""


def _judge(need: Need, offer: Offer) -> Fit | str:
    usd_per_hour = offer.spot_usd_per_hour if need.spot else offer.usd_per_hour
    if usd_per_hour is None:
        return "no spot price of it is known; run: tidegate offers refresh"
    if offer.vcpus < need.threads:
        return f"it has {offer.vcpus} vCPUs for the {need.threads} threads of one replica"
    if offer.gpu is None or need.gpu is None:
        return _on_processors(need, offer, usd_per_hour)
    if why := unsuited(need, need.gpu, offer, offer.gpu):
        return why
    ways = [way for way in _ways(need, offer, offer.gpu) if way[0] >= need.memory_bytes]
    if not ways:
        return _short(need, need.gpus * offer.gpu.memory_bytes, f"{need.gpus} x {offer.gpu.name}")
    beside = min(offer.vcpus // need.threads, usable(offer.memory_bytes) // need.host_bytes)
    if not beside:
        return (
            f"weights pass through {size(need.host_bytes)} of a machine's memory, and of its "
            f"{size(offer.memory_bytes)} one replica can use {size(usable(offer.memory_bytes))}"
        )
    return min(
        (_fit(need, offer, usd_per_hour, way, beside) for way in ways),
        key=lambda fit: (fit.cost, fit.slice is not None),
    )


def _fit(need: Need, offer: Offer, usd_per_hour: float, way: Way, beside: int) -> Fit:
    """`beside` is how many replicas the rest of the machine has room for."""
    room, most, part, bandwidth = way
    each = min(most, beside)
    return Fit(offer, usd_per_hour, room, each, -(-need.replicas // each), part, bandwidth)


def _on_processors(need: Need, offer: Offer, usd_per_hour: float) -> Fit | str:
    if offer.gpu is not None:
        return "it has GPUs, and none is asked for"
    if need.gpu is not None:
        return "it has no GPU"
    room = usable(offer.memory_bytes)
    if room < need.memory_bytes:
        return _short(need, offer.memory_bytes, "its memory")
    return Fit(offer, usd_per_hour, room, 1, need.replicas)


def unsuited(need: Need, wish: GpuSpec, offer: Offer, gpu: Gpu) -> str | None:
    """Why GPUs of this kind will not do, however much memory they have."""
    if wish.type is not None and not gpu.is_a(wish.type):
        return f"its GPUs are {gpu.name}, not {wish.type}"
    if offer.gpus < wish.count:
        return f"it has {offer.gpus} of the {wish.count} GPUs that one replica is to have"
    if need.precision is Precision.FP8 and not gpu.fp8:
        return f"fp8 needs compute capability 8.9, and {gpu.name} has {gpu.compute_capability}"
    if need.precision is not Precision.FP32 and not gpu.bf16:
        return (
            f"{need.precision.value} weights are multiplied in bf16, which needs compute "
            f"capability 8.0, and {gpu.name} has {gpu.compute_capability}"
        )
    return None


def _ways(need: Need, offer: Offer, gpu: Gpu) -> list[Way]:
    """On whole GPUs, and on one slice where GPUs are divided."""
    bandwidth = gpu.bandwidth_bytes_per_s
    whole = bandwidth and bandwidth * need.gpus
    ways: list[Way] = [(usable(gpu.memory_bytes * need.gpus), offer.gpus // need.gpus, None, whole)]
    if need.gpus == 1 and offer.covers in DIVIDED:
        ways += [
            (
                usable(int(gpu.memory_bytes * part.memory_share)),
                offer.gpus * part.count,
                part,
                bandwidth and bandwidth * part.memory_share,
            )
            for part in gpu.slices
        ]
    return ways


def usable(memory_bytes: int) -> int:
    """What weights and KV cache may take of a memory."""
    return math.floor(memory_bytes * UTILISATION)


def decode_bound(fit: Fit, read_bytes: int) -> float | None:
    """Tokens per second of one sequence at most: each token reads every weight once.

    `read_bytes` are the weights that a token reads; keys and values come on top, so the bound is
    not reached. Source: R. Pope et al., "Efficiently Scaling Transformer Inference" (2022).
    """
    return fit.bandwidth_bytes_per_s / read_bytes if fit.bandwidth_bytes_per_s else None


def usd_per_million_tokens(fit: Fit, tokens_per_s: float) -> float:
    """The least a million tokens can cost, where a replica makes so many a second at most.

    Its share of a machine, all of whose replicas are busy without a pause.
    """
    return fit.usd_per_hour / fit.each / (tokens_per_s * 3600) * 1_000_000


def _short(need: Need, memory_bytes: int, what: str) -> str:
    return (
        f"one replica can use {size(usable(memory_bytes))} ({UTILISATION:.0%} of {what}), less "
        f"than {size(need.memory_bytes)}"
    )
