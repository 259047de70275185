"""`python -m tidegate_runtime.artifact compress`: what it takes and what it answers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from tidegate.protocol.compress import CompressProgress, Method

_OPTIONS = ("sparsity", "drop_layers", "act_order", "damping", "smoothing")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads. Choices are checked with the other rules, so that all are refused alike."""
    parser.add_argument(
        "source", help="a directory, a .gguf file, s3://bucket/prefix, hf://org/name"
    )
    parser.add_argument(
        "--method", action="append", required=True, help=", ".join(get_args(Method))
    )
    parser.add_argument("--precision", required=True, help="int4, int8, bf16, fp32")
    parser.add_argument("--output", type=Path, required=True, help="a new directory")
    parser.add_argument("--text", type=Path, help="the calibration text")
    parser.add_argument("--window", type=_count, default=512, help="tokens of a calibration window")
    parser.add_argument("--windows", type=_count, default=32, help="of the calibration text")
    parser.add_argument("--sparsity", help="of wanda and sparsegpt: 0.5, or 2:4")
    parser.add_argument("--drop-layers", type=int, help="of drop: how many go")
    parser.add_argument("--act-order", action="store_true", help="of gptq: largest inputs first")
    parser.add_argument("--damping", type=float, help="of gptq and sparsegpt; 0.01")
    parser.add_argument("--smoothing", type=float, help="of smoothquant: its strength; 0.5")
    parser.add_argument("--quality-text", type=Path, help="measure on this; built-in prose")
    parser.add_argument("--quality-windows", type=_count, default=8, help="the first so many")
    parser.add_argument("--max-perplexity-ratio", type=float, help="refuse above")
    parser.add_argument("--name", help="what the model is called when it is served alone")
    parser.add_argument("--revision", help="a hub commit, tag or branch")
    parser.add_argument("--threads", type=int, help="every core when absent")
    parser.add_argument(
        "--progress", action="store_true", help="steps as JSON lines on standard error"
    )


def run(asked: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Make the smaller model; the report as an object. Raises ModelRefused, ReplicaUnavailable."""
    from tidegate_runtime.artifact.output import check_output
    from tidegate_runtime.artifact.resolve import resolve
    from tidegate_runtime.compress.assess import Assessment
    from tidegate_runtime.compress.compress import CompressOrder, compress
    from tidegate_runtime.compress.recipe import Asked, resolve_recipe

    output: Path = asked.output
    check_output(output)
    options = {name: getattr(asked, name) for name in _OPTIONS}
    recipe = resolve_recipe(Asked(asked.method, asked.precision, **options))
    asked.cache_dir.mkdir(parents=True, exist_ok=True)
    report = compress(
        CompressOrder(
            source=resolve(asked.source, asked.revision, asked.cache_dir),
            recipe=recipe,
            output=output,
            name=asked.name or output.name,
            text=asked.text,
            window=asked.window,
            windows=asked.windows,
            assessment=Assessment(
                asked.quality_text,
                asked.quality_windows,
                asked.max_perplexity_ratio,
                asked.threads,
            ),
            say=say,
            advance=_advance if asked.progress else _sentences(say),
        )
    )
    return {"artifact": str(output), "precision": recipe.precision, **report.model_dump()}


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def _advance(progress: CompressProgress) -> None:
    sys.stderr.write(progress.model_dump_json() + "\n")
    sys.stderr.flush()


def _sentences(say: Callable[[str], None]) -> Callable[[CompressProgress], None]:
    def advance(progress: CompressProgress) -> None:
        """A line for every layer, and every tenth of what has many steps."""
        if progress.stage != "reading" or progress.done % max(1, progress.total // 10) == 0:
            say(f"{progress.stage}: {progress.done} of {progress.total}")

    return advance
