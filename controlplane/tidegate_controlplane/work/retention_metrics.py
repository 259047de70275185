"""What was deleted, and how old the oldest is that was not."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class RetentionMetrics:
    """`why` is `expired`, `file` or `orphan`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._objects = Counter(
            "tidegate_retention_objects", "Objects deleted.", ("why",), registry=registry
        )
        self._bytes = Counter(
            "tidegate_retention_freed_bytes",
            "Bytes of bodies and results deleted, as stored.",
            ("why",),
            registry=registry,
        )
        self.oldest = Gauge(
            "tidegate_retention_oldest_seconds",
            "Age of the oldest finished request that still has its body and result.",
            registry=registry,
        )

    def freed(self, why: str, objects: int, stored_bytes: int) -> None:
        self._objects.labels(why).inc(objects)
        self._bytes.labels(why).inc(stored_bytes)
