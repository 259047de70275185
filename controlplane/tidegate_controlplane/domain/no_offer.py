"""Why no offer fits: the need, the largest offer, and what to do."""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.offers import Offer
from tidegate.spec import Precision
from tidegate_controlplane.domain.offers import Misfit, Need, unsuited


def why_none(need: Need, made_of: str, misfits: Iterable[Misfit], *, gpus_at_most: int) -> str:
    """A sentence for whoever declared it.

    `made_of` names what a replica needs, `gpus_at_most` is what one can be divided over.
    """
    misfits = list(misfits)
    place = f"{need.covers.value} in {need.region}"
    if not misfits:
        return f"no offer is known for {place}; run: tidegate offers refresh --region {need.region}"
    if need.gpu and need.gpu.type and not _has_type(misfits, need.gpu.type):
        types = sorted({each.offer.gpu.name for each in misfits if each.offer.gpu})
        return (
            f"no machine of {place} has a GPU {need.gpu.type!r}; use one of {', '.join(types)}, "
            "or leave hardware.gpu.type out"
        )
    if need.gpu is None and all(each.offer.gpu for each in misfits):
        return f"no machine of {place} is known that has no GPU; ask for one: hardware.gpu.count: 1"
    largest = max(misfits, key=lambda each: _largest(need, each.offer))
    return (
        f"one replica needs {made_of}{_on(need)}, and no offer for {place} fits; "
        f"the largest is {largest.offer.instance_type}: {largest.reason}; "
        f"{_remedies(need, gpus_at_most)}"
    )


def _largest(need: Need, offer: Offer) -> tuple[bool, int]:
    """Orders offers by what one replica could have of them; those of the wrong kind come last."""
    if need.gpu is None:
        return offer.gpu is None, offer.memory_bytes
    if offer.gpu is None:
        return False, 0
    whole = unsuited(need, need.gpu, offer, offer.gpu) is None
    return whole, offer.gpu.memory_bytes * min(need.gpus, offer.gpus)


def _has_type(misfits: Iterable[Misfit], wanted: str) -> bool:
    return any(each.offer.gpu and each.offer.gpu.is_a(wanted) for each in misfits)


def _on(need: Need) -> str:
    if need.gpu is None:
        return " without a GPU"
    kind = f" {need.gpu.type}" if need.gpu.type else ""
    return f" on {need.gpus}{kind} GPU{'s' if need.gpus > 1 else ''}"


def _remedies(need: Need, gpus_at_most: int) -> str:
    ways = []
    if need.precision is not Precision.INT4:
        ways.append("use a lower runtime.precision, such as int4")
    ways.append("lower runtime.context_tokens or runtime.kv_cache")
    if need.gpu is None:
        ways.append("ask for a GPU (hardware.gpu)")
    elif need.gpus < gpus_at_most:
        ways.append("give a replica more GPUs (hardware.gpu.count)")
    ways.append("use a smaller model")
    return f"{', '.join(ways[:-1])}, or {ways[-1]}"
