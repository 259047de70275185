"""`distill`: heads that guess what a model will say, trained on this machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.artifacts import Cache, Output, Threads, flags
from tidegate.cli.options import Json
from tidegate.cli.output import note, say_json, table
from tidegate.local.artifact import run_distill_command


class DistillMethod(StrEnum):
    """How the heads guess."""

    HYDRA = "hydra"
    MEDUSA = "medusa"
    EARLY_EXIT = "early-exit"


def register(app: typer.Typer) -> None:
    app.command()(distill)


def distill(
    source: Annotated[str, typer.Argument(help="Directory, .gguf file, s3://…, hf://…, artifact.")],
    text: Annotated[Path, typer.Option(help="What the model is to continue; like its requests.")],
    output: Output,
    method: Annotated[
        DistillMethod, typer.Option(help="Heads on the last layer, or an exit after an early one.")
    ] = DistillMethod.HYDRA,
    exit_layer: Annotated[
        int | None, typer.Option(min=1, help="Of early-exit: guess after so many layers.")
    ] = None,
    levels: Annotated[int, typer.Option(min=1, max=15, help="How many tokens to guess ahead.")] = 3,
    precision: Annotated[str, typer.Option(help="Of the model that is listened to.")] = "auto",
    tokens: Annotated[int, typer.Option(min=1, help="About how many to listen to.")] = 65_536,
    shortlist: Annotated[int, typer.Option(min=1, help="How many are ever guessed.")] = 4096,
    epochs: Annotated[int, typer.Option(min=1, help="How often to learn from each.")] = 3,
    cache_dir: Cache = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train heads that guess a model's next tokens. Stopped, it goes on where it was."""
    answer = run_distill_command(
        source,
        *flags(
            text=text,
            output=output,
            method=method.value,
            exit_layer=exit_layer,
            levels=levels,
            precision=precision,
            tokens=tokens,
            shortlist=shortlist,
            epochs=epochs,
            cache_dir=cache_dir,
            threads=threads,
        ),
    )
    if as_json:
        say_json(answer)
        return
    rows = zip(answer["untrained_acceptance"], answer["acceptance"], strict=True)
    table(
        ("guesses right", "before", "learnt"),
        [(f"first {n}", f"{old:.1%}", f"{new:.1%}") for n, (old, new) in enumerate(rows, 1)],
        empty="",
    )
    note(f"declare: runtime.speculation.method {answer['method']}, heads {answer['heads']}")
