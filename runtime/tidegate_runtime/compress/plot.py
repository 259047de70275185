"""A plot without a plotting library: what each model lost, and where in its layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tidegate_runtime.compress.report import CompressReport, ReportRow, mean_errors

_WIDTH, _LEFT, _RIGHT, _LINE, _HEAD = 720, 190, 150, 20, 44
_BARS = 160
_INK, _MARK, _RULE = "#333333", "#0b6e75", "#d0d0d0"
_MIB = 1024 * 1024


def draw(report: CompressReport) -> str:
    """The plot of a report as SVG."""
    panels = [_rows_panel(report.rows)]
    if errors := mean_errors(report.layer_errors):
        panels.append(_errors_panel(errors))
    return _document(panels)


def draw_table(rows: Sequence[ReportRow]) -> str:
    """The plot of many models as SVG."""
    return _document([_rows_panel(rows)])


@dataclass(frozen=True)
class _Panel:
    content: str
    height: int


def _rows_panel(rows: Sequence[ReportRow]) -> _Panel:
    """A line a model, with a point where its perplexity is on a logarithmic axis."""
    known = [row.perplexity for row in rows if math.isfinite(row.perplexity)] or [1.0]
    low, high = math.log(min(known)), math.log(max(known))
    span = max(high - low, math.log(1.02))
    parts = [_text(0, 16, "perplexity, logarithmic; and the size of the weights")]
    for place, row in enumerate(rows):
        y = _HEAD + place * _LINE
        share = min(1.0, (math.log(row.perplexity) - low) / span)
        x = _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
        parts += [
            _text(_LEFT - 10, y + 4, f"{row.name}, {row.precision}", anchor="end"),
            _line(_LEFT, _WIDTH - _RIGHT, y),
            f'<circle cx="{x:.1f}" cy="{y}" r="4.5" fill="{_MARK}"/>',
            _text(_WIDTH - _RIGHT + 10, y + 4, f"{row.perplexity:.2f}"),
            _text(_WIDTH, y + 4, f"{row.weights_bytes / _MIB:.0f} MiB", anchor="end"),
        ]
    return _Panel("".join(parts), _HEAD + len(rows) * _LINE + 10)


def _errors_panel(errors: Sequence[float]) -> _Panel:
    """A bar a layer."""
    most = max(errors) or 1.0
    step = (_WIDTH - _LEFT - _RIGHT) / len(errors)
    foot = _HEAD + _BARS
    parts = [_text(0, 16, "share of its linears' output that is wrong, by layer")]
    for share in (0.0, 0.5, 1.0):
        y = foot - share * _BARS
        label = f"{most * share:.2g}"
        parts += [
            _line(_LEFT, _WIDTH - _RIGHT, y),
            _text(_LEFT - 10, y + 4, label, anchor="end"),
        ]
    for layer, error in enumerate(errors):
        height = error / most * _BARS
        parts.append(
            f'<rect x="{_LEFT + layer * step:.1f}" y="{foot - height:.1f}" '
            f'width="{0.75 * step:.1f}" height="{height:.1f}" fill="{_MARK}"/>'
        )
    parts += [_text(_LEFT, foot + 16, "0"), _text(_WIDTH - _RIGHT, foot + 16, f"{len(errors) - 1}")]
    return _Panel("".join(parts), foot + 30)


def _line(start: float, end: float, y: float) -> str:
    return f'<line x1="{start}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_RULE}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}">{escape(text)}</text>'
    )


def _document(panels: Sequence[_Panel]) -> str:
    drawn, height = [], 10
    for panel in panels:
        drawn.append(f'<g transform="translate(10 {height})">{panel.content}</g>')
        height += panel.height
    width = _WIDTH + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{"".join(drawn)}</svg>\n'
    )
