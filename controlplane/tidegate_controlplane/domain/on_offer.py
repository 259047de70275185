"""A plan on a machine of the catalogue: which one, what it costs, how fast it can be at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.offers import Covers, Offer
from tidegate.protocol.resources import ConsideredOffer, PlannedOffer, ResolvedPlan
from tidegate.spec import DeploymentSpec, Precision, SpecIssue
from tidegate_controlplane.domain.draft import with_kv_cache
from tidegate_controlplane.domain.footprint import caches_bytes, host_bytes
from tidegate_controlplane.domain.no_offer import why_none
from tidegate_controlplane.domain.offers import (
    UTILISATION,
    Fit,
    Need,
    decode_bound,
    rank,
    usable,
    usd_per_million_tokens,
)
from tidegate_controlplane.domain.offload import offload_bound
from tidegate_controlplane.domain.size import need

HOURS_PER_MONTH = 730
"""As AWS' own calculator counts: 365 days of 24 hours over 12."""


@dataclass(frozen=True)
class Market:
    """Where machines are rented, and what is on offer there."""

    covers: Covers
    region: str
    offers: Sequence[Offer]


def on_offer(
    spec: DeploymentSpec,
    plan: ResolvedPlan,
    market: Market,
    *,
    kv_most_bytes: int,
    read_bytes: int,
    gpus_at_most: int,
) -> ResolvedPlan | SpecIssue:
    """The plan on the best offer for it; its KV cache takes what is left there.

    `plan` has the least KV cache that will do, and `kv_most_bytes` is what it can make use of;
    `read_bytes` are the weights that each token reads.
    """
    wanted = _wanted(plan, market)
    ranking = rank(wanted, market.offers)
    if not ranking.fits:
        asked = spec.hardware.gpu
        sentence = why_none(wanted, need(plan), ranking.misfits, gpus_at_most=gpus_at_most)
        if asked is None:
            return SpecIssue("model.source", spec.model.source, sentence)
        return SpecIssue("hardware.gpu", asked.model_dump(mode="json"), sentence)
    fit = ranking.fits[0]
    bound = spec.hardware.memory
    room = fit.usable_bytes if bound is None else min(fit.usable_bytes, int(bound))
    filled = with_cache(plan, room, kv_most_bytes)
    offer = _planned(fit, plan, None if spec.model.task.encodes else read_bytes)
    return filled.model_copy(update={"offer": offer})


def largest_gpu_bytes(spec: DeploymentSpec, market: Market) -> int | None:
    """What a replica on one GPU can have of the largest one that is asked for; None without any."""
    asked = spec.hardware.gpu
    if asked is None or asked.count > 1:
        return None
    found = [
        usable(offer.gpu.memory_bytes)
        for offer in market.offers
        if (offer.covers, offer.region) == (market.covers, market.region)
        and offer.gpu
        and (asked.type is None or offer.gpu.is_a(asked.type))
    ]
    return max(found, default=None)


def considered(plan: ResolvedPlan, market: Market) -> list[ConsideredOffer]:
    """Every offer of the market, judged for a plan that was made on one of them."""
    ranking = rank(_wanted(plan, market), market.offers)
    fitting = [_considered(fit.offer, fit, None) for fit in ranking.fits]
    return fitting + [_considered(each.offer, None, each.reason) for each in ranking.misfits]


def staying(plan: ResolvedPlan, former: ResolvedPlan) -> ResolvedPlan:
    """A plan whose replicas run already as `former` says: newer prices do not move them."""
    if former.offer is None:
        return plan
    monthly = _monthly_usd(plan.min_replicas, former.offer.replicas, former.offer.usd_per_hour)
    return plan.model_copy(
        update={
            "offer": former.offer.model_copy(update={"minimum_usd_per_month": monthly}),
            "kv_cache_bytes": former.kv_cache_bytes,
            "memory_bytes": former.memory_bytes,
        }
    )


def share_usd_per_hour(offer: PlannedOffer) -> float:
    """What one replica costs, by its share of a machine, on demand."""
    return offer.usd_per_hour / offer.replicas


def with_cache(plan: ResolvedPlan, room_bytes: int, kv_most_bytes: int) -> ResolvedPlan:
    """The same plan with a KV cache that fills the room, if it can make use of so much."""
    caches = caches_bytes(plan)
    room = room_bytes - (plan.memory_bytes - caches)
    filling = room * plan.kv_cache_bytes // caches if caches else 0
    return with_kv_cache(plan, max(plan.kv_cache_bytes, min(kv_most_bytes, filling)))


def _wanted(plan: ResolvedPlan, market: Market) -> Need:
    return Need(
        memory_bytes=plan.memory_bytes,
        precision=Precision(plan.precision),
        gpu=plan.gpu,
        covers=market.covers,
        region=market.region,
        host_bytes=host_bytes(plan),
        threads=plan.threads or 1,
        replicas=max(1, plan.min_replicas),
    )


def _planned(fit: Fit, plan: ResolvedPlan, read_bytes: int | None) -> PlannedOffer:
    offer = fit.offer
    decode = None if read_bytes is None else decode_bound(fit, read_bytes)
    if decode and plan.offload:
        decode = min(decode, offload_bound(plan.offload))
    batch = decode and decode * plan.max_sequences
    return PlannedOffer(
        provider=offer.provider,
        covers=offer.covers,
        region=offer.region,
        instance_type=offer.instance_type,
        gpu=offer.gpu.name if offer.gpu else None,
        gpus=plan.gpu.count if plan.gpu else 0,
        slice=fit.slice.profile if fit.slice else None,
        replicas=fit.each,
        usable_bytes=fit.usable_bytes,
        utilisation=UTILISATION,
        usd_per_hour=offer.usd_per_hour,
        spot_usd_per_hour=offer.spot_usd_per_hour,
        source=offer.source,
        as_of=offer.as_of,
        minimum_usd_per_month=_monthly_usd(plan.min_replicas, fit.each, offer.usd_per_hour),
        decode_tokens_per_s=decode and round(decode, 1),
        batch_tokens_per_s=batch and round(batch, 1),
        usd_per_million_tokens=batch and round(usd_per_million_tokens(fit, batch), 4),
    )


def _monthly_usd(replicas: int, each: int, usd_per_hour: float) -> float:
    return round(-(-replicas // each) * usd_per_hour * HOURS_PER_MONTH, 2)


def _considered(offer: Offer, fit: Fit | None, reason: str | None) -> ConsideredOffer:
    return ConsideredOffer(
        instance_type=offer.instance_type,
        gpu=offer.gpu.name if offer.gpu else None,
        gpus=offer.gpus,
        usd_per_hour=offer.usd_per_hour,
        usd_per_month=fit and round(fit.cost[0] * HOURS_PER_MONTH, 2),
        reason=reason,
    )
