"""`compress`: a smaller model made on this machine, no server needed."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from tidegate.cli.artifacts import Output, Text, Threads, flags
from tidegate.cli.options import Json
from tidegate.cli.output import note, say_json, table
from tidegate.cli.progress import compress_bar
from tidegate.local.artifact import run_compress
from tidegate.protocol.compress import Method

_MIB = 1024 * 1024


class CompressPrecision(StrEnum):
    """The number format of the smaller model's weights."""

    INT4 = "int4"
    INT8 = "int8"
    BF16 = "bf16"
    FP32 = "fp32"


def register(app: typer.Typer) -> None:
    app.command()(compress)


def compress(
    source: Annotated[str, typer.Argument(help="Directory, .gguf file, s3://… or hf://….")],
    method: Annotated[
        list[str], typer.Option(help=f"{', '.join(get_args(Method))}; several, one after another.")
    ],
    precision: Annotated[CompressPrecision, typer.Option(help="Of the weights.")],
    output: Output,
    text: Annotated[
        Path | None, typer.Option(help="The calibration text: what the model is used for.")
    ] = None,
    window: Annotated[int, typer.Option(min=2, help="Tokens of a calibration window.")] = 512,
    windows: Annotated[int, typer.Option(min=1, help="How many of the text.")] = 32,
    sparsity: Annotated[
        str | None, typer.Option(help="wanda, sparsegpt: 0.5, or 2:4 for two that stay of four.")
    ] = None,
    drop_layers: Annotated[int | None, typer.Option(help="drop: how many layers go.")] = None,
    act_order: Annotated[
        bool, typer.Option("--act-order", help="gptq: the largest inputs first.")
    ] = False,
    damping: Annotated[
        float | None, typer.Option(help="gptq, sparsegpt: a share of the mean energy.  [0.01]")
    ] = None,
    smoothing: Annotated[
        float | None, typer.Option(help="smoothquant: how much moves into the weights.  [0.5]")
    ] = None,
    quality_text: Text = None,
    quality_windows: Annotated[int, typer.Option(min=1, help="Of 512 tokens.")] = 8,
    max_perplexity_ratio: Annotated[
        float | None, typer.Option(help="Refuse above this ratio to the source's perplexity.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name when served alone.")] = None,
    revision: Annotated[str | None, typer.Option(help="A hub commit, tag or branch.")] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where sources are kept.  [~/.cache/tidegate]")
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Make a smaller model: fewer bits, weights or layers, guided by a text.

    A run that was stopped goes on where it was when the command is given again.
    """
    arguments = flags(
        precision=precision.value,
        output=output,
        text=text,
        window=window,
        windows=windows,
        sparsity=sparsity,
        drop_layers=drop_layers,
        damping=damping,
        smoothing=smoothing,
        quality_text=quality_text,
        quality_windows=quality_windows,
        max_perplexity_ratio=max_perplexity_ratio,
        name=name,
        revision=revision,
        cache_dir=cache_dir,
        threads=threads,
    )
    chosen = [word for each in method for word in ("--method", each)]
    order = ("--act-order",) if act_order else ()
    with compress_bar(quiet=as_json) as (advance, say):
        answer = run_compress(source, *chosen, *arguments, *order, advance=advance, say=say)
    if as_json:
        say_json(answer)
        return
    show(answer["rows"])
    note(
        f"on {answer['text']}, {answer['tokens']} tokens; {answer['artifact']} holds this as "
        "quality.json and quality.svg"
    )


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A line for the source, one for what was made of it."""
    columns = {
        "model": "{name}",
        "precision": "{precision}",
        "weights": "{weights_mib:.1f} MiB",
        "memory": "{memory_mib:.1f} MiB",
        "perplexity": "{perplexity:.3f}",
        "ratio": "{ratio:.4f}",
        "same tokens": "{agreement:.2%}",
        "divergence": "{mean_kl:.5f}",
        "decode": "{decode_tokens_per_s:.1f} tok/s",
        "prefill": "{prefill_tokens_per_s:.0f} tok/s",
    }
    table(
        list(columns), [[_cell(text, row) for text in columns.values()] for row in rows], empty=""
    )


def _cell(text: str, row: dict[str, Any]) -> str | None:
    """None where the figure is not there."""
    mib = {
        f"{name}_mib": None if row[f"{name}_bytes"] is None else row[f"{name}_bytes"] / _MIB
        for name in ("weights", "memory")
    }
    try:
        return text.format(**{key: v for key, v in {**row, **mib}.items() if v is not None})
    except KeyError:
        return None
