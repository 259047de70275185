"""`build` and `quality`: artifacts on this machine, no server needed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tidegate.cli.options import Json
from tidegate.cli.output import note, say_json, table
from tidegate.local.artifact import run_artifact_command

_MIB = 1024 * 1024


class BuildPrecision(StrEnum):
    """The number format of an artifact's weights."""

    AUTO = "auto"
    INT4 = "int4"
    INT8 = "int8"
    BF16 = "bf16"
    FP32 = "fp32"


Text = Annotated[
    Path | None, typer.Option(help="Measure on this text file, not on built-in prose.")
]
Cache = Annotated[
    Path | None, typer.Option(help="Where sources and artifacts are kept.  [~/.cache/tidegate]")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="A new directory.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Every core when absent.")]


def register(app: typer.Typer) -> None:
    app.command()(build)
    app.command()(quality)


def build(
    source: Annotated[str, typer.Argument(help="Directory, .gguf file, s3://… or hf://….")],
    precision: Annotated[
        BuildPrecision, typer.Option(help="Of the weights.")
    ] = BuildPrecision.AUTO,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new directory; the cache when absent.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name when served alone.")] = None,
    revision: Annotated[str | None, typer.Option(help="A hub commit, tag or branch.")] = None,
    text: Text = None,
    max_perplexity_ratio: Annotated[
        float | None, typer.Option(help="Refuse above this ratio to the source's perplexity.")
    ] = None,
    quality: Annotated[bool, typer.Option(help="Measure what the precision costs.")] = True,
    cache_dir: Cache = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Turn a model into an artifact: packed, verified, ready to be mapped into memory."""
    answer = run_artifact_command(
        "build",
        source,
        *flags(
            precision=precision.value,
            output=output,
            name=name,
            revision=revision,
            text=text,
            max_perplexity_ratio=max_perplexity_ratio,
            cache_dir=cache_dir,
            threads=threads,
        ),
        *(() if quality else ("--no-quality",)),
    )
    if as_json:
        say_json(answer)
        return
    _rows(
        {
            "artifact": answer["artifact"],
            "precision": answer["precision"],
            "weights": f"{answer['weights_bytes'] / _MIB:.1f} MiB",
            **_figures(answer["quality"] or {}),
        }
    )
    if answer["quality_note"]:
        note(f"quality: {answer['quality_note']}")


def quality(
    artifact: Annotated[Path, typer.Argument(help="An artifact's directory.")],
    reference: Annotated[
        str | None, typer.Option(help="The source to compare with; its own when absent.")
    ] = None,
    text: Text = None,
    window: Annotated[int, typer.Option(min=2, help="Tokens of a window.")] = 512,
    windows: Annotated[int | None, typer.Option(min=1, help="The first so many only.")] = None,
    kv: Annotated[str | None, typer.Option(help="Of the KV cache: bf16, int8, fp8, fp32.")] = None,
    cache_dir: Cache = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure an artifact on a text: perplexity, and agreement with its source's weights."""
    answer = run_artifact_command(
        "quality",
        str(artifact),
        *flags(
            reference=reference,
            text=text,
            window=window,
            windows=windows,
            kv=kv,
            cache_dir=cache_dir,
            threads=threads,
        ),
    )
    if as_json:
        say_json(answer)
        return
    _rows(
        {
            "precision": answer["precision"],
            "text": answer["text"],
            "tokens": f"{answer['tokens']} in windows of {answer['window']}",
            **_figures(answer),
        }
    )


def _figures(found: dict[str, Any]) -> dict[str, str]:
    shown = {
        "perplexity": ("perplexity", "{:.4f}"),
        "reference_perplexity": ("perplexity of the source", "{:.4f}"),
        "ratio": ("ratio", "{:.4f}"),
        "agreement": ("same greedy tokens", "{:.2%}"),
        "mean_kl": ("divergence, nats", "{:.5f}"),
    }
    return {
        label: text.format(found[field])
        for field, (label, text) in shown.items()
        if found.get(field) is not None
    }


def _rows(rows: dict[str, str]) -> None:
    table(("what", "value"), rows.items(), empty="")


def flags(**values: Any) -> list[str]:
    """`--some-flag value` for every value that is there."""
    return [
        word
        for name, value in values.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
