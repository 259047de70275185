"""Synthetic traces: `poisson:rate=2,seconds=3600` and its kin. Equal seeds make equal traces.

Arrivals follow a Poisson process whose rate may change (thinning, Lewis and Shedler, 1979); lengths
are log-normal, as in published traces of language models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from random import Random

from tidegate_controlplane.errors import BadTrace
from tidegate_controlplane.simulate.trace import Arrival

SHAPES: dict[str, dict[str, float]] = {
    "poisson": {"rate": 1.0, "seconds": 7200.0},
    "diurnal": {"rate": 1.0, "low": 0.1, "period": 21_600.0, "seconds": 43_200.0},
    "bursty": {"rate": 2.0, "low": 0.0, "on": 120.0, "off": 300.0, "seconds": 14_400.0},
}
"""Each shape with its defaults: requests a second (mean, peak, within a burst), seconds."""
LENGTHS = {"prompt": 300.0, "output": 200.0}
"""Mean tokens, for every shape."""
SPREAD = 0.6
"""Standard deviation of a length's logarithm."""
Rate = Callable[[float], float]


def is_synthetic(text: str) -> bool:
    """Whether a `--trace` describes a shape, and is no file's name."""
    return text.partition(":")[0] in SHAPES


def synthesize(text: str, seed: int) -> list[Arrival]:
    """The trace that `shape:name=value,…` describes. Raises BadTrace naming what is wrong."""
    shape, values = _parsed(text)
    rng = Random(f"{seed}:{shape}")
    rate = {"poisson": _steady, "diurnal": _diurnal, "bursty": _bursty}[shape](values, rng)
    times = _thinned(rate, max(values["rate"], values.get("low", 0.0)), values["seconds"], rng)
    prompt, output = values["prompt"], values["output"]
    return [Arrival(at_s, _length(prompt, rng), _length(output, rng)) for at_s in times]


def _parsed(text: str) -> tuple[str, dict[str, float]]:
    shape, _, rest = text.partition(":")
    values = {**SHAPES[shape], **LENGTHS}
    for part in filter(None, rest.split(",")):
        name, _, given = part.partition("=")
        if name not in values:
            raise BadTrace(f"--trace: {shape} has no {name!r}; it has {', '.join(values)}")
        try:
            values[name] = float(given)
        except ValueError:
            raise BadTrace(f"--trace: {name}: {given!r} is not a number") from None
        if not 0.0 <= values[name] < math.inf or (values[name] == 0.0 and name != "low"):
            raise BadTrace(f"--trace: {name}: {given} must be more than 0 and finite")
    return shape, values


def _steady(values: dict[str, float], _rng: Random) -> Rate:
    return lambda _at_s: values["rate"]


def _diurnal(values: dict[str, float], _rng: Random) -> Rate:
    """A sine between `low` and `rate`, lowest at the start of each `period`."""
    middle, swing = (values["rate"] + values["low"]) / 2, (values["rate"] - values["low"]) / 2
    return lambda at_s: middle - swing * math.cos(2 * math.pi * at_s / values["period"])


def _bursty(values: dict[str, float], rng: Random) -> Rate:
    """Bursts and pauses of exponential lengths: a Markov-modulated Poisson process."""
    spans: list[tuple[float, float]] = []
    at_s = rng.expovariate(1 / values["off"])
    while at_s < values["seconds"]:
        end_s = at_s + rng.expovariate(1 / values["on"])
        spans.append((at_s, end_s))
        at_s = end_s + rng.expovariate(1 / values["off"])
    return _within(spans, values["rate"], values["low"])


def _within(spans: list[tuple[float, float]], inside: float, outside: float) -> Rate:
    """A rate that is asked for in order of time."""
    rest = iter(spans)
    span = next(rest, (math.inf, math.inf))

    def rate(at_s: float) -> float:
        nonlocal span
        while at_s >= span[1]:
            span = next(rest, (math.inf, math.inf))
        return inside if at_s >= span[0] else outside

    return rate


def _thinned(rate: Rate, highest: float, seconds: float, rng: Random) -> Iterator[float]:
    at_s = rng.expovariate(highest)
    while at_s < seconds:
        if rng.random() * highest < rate(at_s):
            yield at_s
        at_s += rng.expovariate(highest)


def _length(mean: float, rng: Random) -> int:
    return max(1, round(rng.lognormvariate(math.log(mean) - SPREAD**2 / 2, SPREAD)))
