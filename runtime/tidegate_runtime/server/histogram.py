"""A Prometheus histogram that takes a value many times over at the price of one."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class WeightedHistogram(Collector):
    """For what all the sequences of a step have in common; safe to use from any thread."""

    def __init__(
        self,
        name: str,
        description: str,
        bounds: Sequence[float],
        model_name: str,
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._description = description
        self._bounds = bounds
        self._model_name = model_name
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, value: float, times: int) -> None:
        """Take `value`, `times` over."""
        place = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[place] += times
            self._sum += value * times

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """As the registry asks for it."""
        with self._lock:
            totals, value_sum = list(accumulate(self._counts)), self._sum
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        family = HistogramMetricFamily(self._name, self._description, labels=["model_name"])
        family.add_metric([self._model_name], list(zip(bounds, totals, strict=True)), value_sum)
        return [family]
