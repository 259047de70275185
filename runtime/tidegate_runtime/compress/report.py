"""The quality report of a smaller model, beside what it was made from."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from tidegate_runtime.artifact.manifest import CompressionEntry, QualityEntry
from tidegate_runtime.artifact.speed import SpeedEntry

REPORT, PLOT = "quality.json", "quality.svg"
"""Files of the artifact."""


class ReportRow(BaseModel):
    """One model. Its memory is that of its weights and of a step's activations, as predicted; the
    source has no speed, because the engine does not run it, and nothing to be compared with.
    """

    name: str
    precision: str
    weights_bytes: int
    memory_bytes: int | None = None
    perplexity: float
    ratio: float | None = None
    agreement: float | None = None
    mean_kl: float | None = None
    decode_tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None


class CompressReport(BaseModel):
    """`layer_errors` are, by layer and linear, the share of its output's energy that is wrong on
    the calibration text; the figures of the rows are on the held-out text.
    """

    compression: CompressionEntry
    text: str
    tokens: int
    window: int
    rows: list[ReportRow]
    layer_errors: list[dict[str, float]] = []


def result_row(
    name: str,
    precision: str,
    *,
    weights_bytes: int,
    memory_bytes: int,
    quality: QualityEntry,
    speed: SpeedEntry,
) -> ReportRow:
    """The row of an artifact."""
    return ReportRow(
        name=name,
        precision=precision,
        weights_bytes=weights_bytes,
        memory_bytes=memory_bytes,
        perplexity=quality.perplexity,
        ratio=quality.ratio,
        agreement=quality.agreement,
        mean_kl=quality.mean_kl,
        decode_tokens_per_s=speed.decode_tokens_per_s,
        prefill_tokens_per_s=speed.prefill_tokens_per_s,
    )


def mean_errors(layer_errors: Sequence[dict[str, float]]) -> list[float]:
    """Of each layer, over its linears."""
    return [sum(errors.values()) / len(errors) for errors in layer_errors if errors]
