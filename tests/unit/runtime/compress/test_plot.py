"""A report drawn without a plotting library."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from tidegate_runtime.artifact.manifest import CompressionEntry
from tidegate_runtime.compress.plot import draw, draw_table
from tidegate_runtime.compress.report import CompressReport, ReportRow


def row(name: str, perplexity: float) -> ReportRow:
    return ReportRow(name=name, precision="int4", weights_bytes=3 << 20, perplexity=perplexity)


def drawn(svg: str, shape: str) -> list[dict[str, str]]:
    return [each.attrib for each in ElementTree.fromstring(svg).findall(f".//{{*}}g/{{*}}{shape}")]


def test_a_model_that_is_further_off_lies_further_to_the_right() -> None:
    svg = draw_table([row("a", 14.0), row("b", 28.0), row("c", 56.0), row("<d>", math.nan)])
    a, b, c, d = (float(point["cx"]) for point in drawn(svg, "circle"))
    assert a < b < c == d
    assert math.isclose(b - a, c - b, abs_tol=0.2)  # twice is one step on a logarithmic axis
    assert "&lt;d&gt;, int4" in svg
    assert "3 MiB" in svg


def test_what_each_layer_lost_is_a_bar_and_nothing_lost_is_no_plot() -> None:
    report = CompressReport(
        compression=CompressionEntry(methods=["gptq"]),
        text="t",
        tokens=1,
        window=2,
        rows=[row("source", 14.0), row("gptq", 14.0)],
        layer_errors=[{"up": 0.1, "down": 0.3}, {"up": 0.1}],
    )
    tall, low = (float(bar["height"]) for bar in drawn(draw(report), "rect"))
    assert math.isclose(tall, 2 * low)
    assert drawn(draw(report.model_copy(update={"layer_errors": []})), "rect") == []
