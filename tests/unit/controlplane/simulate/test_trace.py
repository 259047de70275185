"""Traces: recorded ones are read or refused by line, synthetic ones are what they are called."""

from __future__ import annotations

import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from tidegate_controlplane.errors import BadTrace
from tidegate_controlplane.simulate.synthetic import is_synthetic, synthesize
from tidegate_controlplane.simulate.trace import Arrival, read_trace

GOOD = '{"at_s": 1.5, "prompt_tokens": 10, "output_tokens": 20}'


def trace_file(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_a_recorded_trace_is_read_in_order_of_time(tmp_path: Path) -> None:
    early = '{"at_s": 0, "prompt_tokens": 1, "output_tokens": 0}'
    assert read_trace(trace_file(tmp_path, GOOD, "", early)) == [
        Arrival(0.0, 1, 0),
        Arrival(1.5, 10, 20),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: '[1]' is no object with at_s"),
        ('{"at_s": 1, "prompt_tokens": 1}', "line 2: output_tokens: None is not a whole number"),
        (GOOD.replace("1.5", "-1"), "line 2: at_s: -1 is not a number of 0 or more"),
        (GOOD.replace("1.5", "NaN"), "line 2: at_s: nan is not a number"),
        (GOOD.replace("1.5", "1e999"), "line 2: at_s: must be finite"),
        (GOOD.replace("10", "0"), "line 2: prompt_tokens: 0 is not a whole number of 1 or more"),
        (GOOD.replace("20", "true"), "line 2: output_tokens: True is not a whole number"),
        (GOOD.replace("}", ', "x": 1}'), "line 2: x: unknown"),
    ],
)
def test_a_bad_line_is_refused_by_its_number_and_field(
    tmp_path: Path, line: str, said: str
) -> None:
    with pytest.raises(BadTrace) as caught:
        read_trace(trace_file(tmp_path, GOOD, line))
    assert said in str(caught.value)


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match=r"cannot read .*; give a JSONL file, or a shape: bursty"):
        read_trace(tmp_path / "none")
    with pytest.raises(BadTrace, match="holds no request"):
        read_trace(trace_file(tmp_path, ""))


def test_equal_seeds_make_equal_traces_and_others_make_others() -> None:
    assert synthesize("bursty:seconds=2000", 1) == synthesize("bursty:seconds=2000", 1)
    assert synthesize("poisson:seconds=100", 1) != synthesize("poisson:seconds=100", 2)


def test_poisson_arrivals_come_at_the_rate_and_scatter_as_they_should() -> None:
    trace = synthesize("poisson:rate=4,seconds=2000", 3)
    assert len(trace) == pytest.approx(8000, rel=0.05)
    gaps = [after.at_s - before.at_s for before, after in pairwise(trace)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.1)
    assert statistics.fmean(a.prompt_tokens for a in trace) == pytest.approx(300, rel=0.05)
    assert statistics.fmean(a.output_tokens for a in trace) == pytest.approx(200, rel=0.05)


def test_a_day_is_quiet_at_its_start_and_busy_in_its_middle() -> None:
    trace = synthesize("diurnal:rate=10,low=1,period=1000,seconds=1000", 1)
    night = sum(a.at_s < 100 or a.at_s > 900 for a in trace)
    noon = sum(400 < a.at_s < 600 for a in trace)
    assert noon > 5 * night


def test_between_bursts_there_is_silence() -> None:
    trace = synthesize("bursty:rate=5,on=60,off=300,seconds=20000", 2)
    pauses = [b.at_s - a.at_s for a, b in pairwise(trace) if b.at_s - a.at_s > 20]
    assert len(pauses) > 20
    assert len(trace) == pytest.approx(20000 * 5 / 6, rel=0.4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("poisson:speed=2", "poisson has no 'speed'; it has rate, seconds, prompt, output"),
        ("poisson:rate=fast", "rate: 'fast' is not a number"),
        ("poisson:rate=0", "rate: 0 must be more than 0"),
        ("diurnal:seconds=inf", "seconds: inf must be more than 0 and finite"),
    ],
)
def test_a_description_that_cannot_be_is_refused_by_name(text: str, said: str) -> None:
    assert is_synthetic(text)
    with pytest.raises(BadTrace) as caught:
        synthesize(text, 1)
    assert said in str(caught.value)
