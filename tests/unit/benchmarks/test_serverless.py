"""Figures of the serverless benchmark are what the samples say."""

from __future__ import annotations

import pytest
from benchmarks.serverless.percentiles import percentile, percentiles
from benchmarks.serverless.zero import _brings_text


def test_a_percentile_is_the_smallest_sample_that_the_share_does_not_exceed() -> None:
    samples = [float(number) for number in range(50, 0, -1)]
    assert [percentile(samples, share) for share in (0.5, 0.98, 0.99)] == [25.0, 49.0, 50.0]
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0


def test_samples_become_a_median_and_a_last_percentile_in_seconds() -> None:
    rows = percentiles("tidegate", "zero", [0.1, 0.2, 0.3], "int4")
    assert [(row.metric, row.value, row.unit) for row in rows] == [
        ("p50", 0.2, "s"),
        ("p99", 0.3, "s"),
    ]


def test_only_a_piece_of_text_is_a_first_token() -> None:
    role = 'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}'
    text = 'data: {"choices": [{"delta": {"content": "Paris"}}]}'
    assert [_brings_text(line) for line in (": waiting", "", "data: [DONE]", role, text)] == [
        False,
        False,
        False,
        False,
        True,
    ]


def test_a_failed_stream_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match="no_replica"):
        _brings_text('data: {"error": {"code": "no_replica"}}')
