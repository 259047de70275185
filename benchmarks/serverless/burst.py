"""A burst against zero replicas: all are held, and all are answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx
from benchmarks.rows import Row
from benchmarks.serverless.percentiles import percentiles
from benchmarks.serverless.platform import MODEL, Platform

DEADLINE_S = 300.0
TOKENS = 8


def measure(platform: Platform, precision: str, requests: int = 500) -> list[Row]:
    """`requests` at once: how many failed, and how long they took."""
    platform.rest()
    began = time.perf_counter()
    statuses, times = asyncio.run(_send_all(platform, requests))
    took = time.perf_counter() - began
    workload = f"burst_{requests}"
    failed = requests - statuses[200]
    return [
        Row("tidegate", workload, "failed", float(failed), "requests", precision),
        Row("tidegate", workload, "all_answered", took, "s", precision),
        *percentiles("tidegate", workload, times, precision),
    ]


async def _send_all(platform: Platform, requests: int) -> tuple[Counter[int], list[float]]:
    headers = {"authorization": f"Bearer {platform.api_key}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=platform.url, headers=headers, timeout=DEADLINE_S, limits=limits
    ) as client:
        answers = await asyncio.gather(*(_send(client, number) for number in range(requests)))
    return Counter(status for status, _ in answers), [took for _, took in answers]


async def _send(client: httpx.AsyncClient, number: int) -> tuple[int, float]:
    """The status (0 when there is none) and the seconds of one request."""
    body = {"model": MODEL, "prompt": f"{number} is", "max_tokens": TOKENS, "ignore_eos": True}
    began = time.perf_counter()
    try:
        answer = await client.post("/v1/completions", json=body)
    except httpx.TransportError:
        return 0, time.perf_counter() - began
    return answer.status_code, time.perf_counter() - began
