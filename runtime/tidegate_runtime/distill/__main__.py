"""`python -m tidegate_runtime.distill`: train heads that guess what a model will say.

Progress goes to standard error. With `--json` one JSON object on standard output is the result, or
`{"error": {"reason", "message"}}`. Exit status: 0 done, 1 not now, 2 misused, 3 refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tidegate.protocol.replica import EXIT_CRASHED, EXIT_REFUSED
from tidegate_runtime.artifact.__main__ import default_cache, prepare_libraries
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable

METHODS = ("hydra", "medusa", "early-exit")
_LEVELS = 3


def main(arguments: Sequence[str]) -> int:
    """Run it; returns the exit status."""
    asked = _parser().parse_args(arguments)
    prepare_libraries()
    try:
        answer = run(asked)
    except (ModelRefused, ReplicaUnavailable) as error:
        if asked.json:
            _write(json.dumps({"error": {"reason": error.reason, "message": error.message}}))
        else:
            sys.stderr.write(f"error: {error.message}\n")
        return EXIT_REFUSED if isinstance(error, ModelRefused) else EXIT_CRASHED
    _write(json.dumps(answer, indent=None if asked.json else 2))
    return 0


def run(asked: argparse.Namespace) -> dict[str, object]:
    """Distill as the command line says. Raises ModelRefused and ReplicaUnavailable."""
    from tidegate_runtime.distill.distill import Lesson, distill
    from tidegate_runtime.distill.progress import Bars
    from tidegate_runtime.distill.train import Training

    method = asked.method.replace("-", "_")
    if (asked.exit_layer is not None) != (method == "early_exit"):
        raise ModelRefused(
            "BadExitLayer",
            f"--exit-layer {asked.exit_layer} with --method {asked.method}; early-exit needs one, "
            "and no other method has one",
        )
    lesson = Lesson(
        source=asked.source,
        precision=asked.precision,
        text=asked.text,
        method=method,
        exit_layer=asked.exit_layer,
        levels=1 if method == "early_exit" else asked.levels,
        shortlist=asked.shortlist,
        places=asked.tokens,
        training=Training(epochs=asked.epochs, seed=asked.seed),
    )
    bars = Bars()
    try:
        manifest = distill(lesson, asked.output, asked.cache_dir, asked.threads, bars)
    finally:
        bars.close()
    return {"heads": str(asked.output), **manifest.model_dump()}


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="tidegate_runtime.distill", description=__doc__)
    made.add_argument("source", help="a directory, a .gguf file, s3://…, hf://…, or an artifact")
    made.add_argument("--text", type=Path, required=True, help="what the model is to continue")
    made.add_argument("--method", choices=METHODS, default="hydra")
    made.add_argument("--exit-layer", type=int, help="of early-exit: guess after so many layers")
    made.add_argument("--levels", type=int, choices=range(1, 16), default=_LEVELS, metavar="N")
    made.add_argument("--output", type=Path, required=True, help="a new directory")
    made.add_argument("--precision", default="auto", help="of the model that is listened to")
    made.add_argument("--tokens", type=int, default=65_536, help="about how many to listen to")
    made.add_argument("--shortlist", type=int, default=4096, help="how many are ever guessed")
    made.add_argument("--epochs", type=int, default=3)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, help="every core when absent")
    made.add_argument("--cache-dir", type=Path, default=default_cache())
    made.add_argument("--json", action="store_true", help="one JSON object as the result")
    return made


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
