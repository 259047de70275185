"""`python -m tidegate_runtime.artifact`: build, compress, measure, name, list, prune artifacts.

Progress is lines on standard error. With `--json` one JSON object on standard output is the result,
or `{"error": {"reason", "message"}}`. Exit status: 0 done, 1 not now (memory, disk, network), 2
misused, 3 refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tidegate.protocol.replica import EXIT_CRASHED, EXIT_REFUSED
from tidegate_runtime.artifact.store import LIMIT_BYTES, ArtifactStore, artifact_key, describe
from tidegate_runtime.compress import command as compress
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable

PRECISIONS = ("auto", "int4", "int8", "bf16", "fp32")
_MIB = 1024 * 1024


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status."""
    asked = _parser().parse_args(arguments)
    if asked.parent_pid is not None:
        from tidegate_runtime.server.parent import die_with

        die_with(asked.parent_pid)
    prepare_libraries()
    try:
        answer: dict[str, Any] = asked.run(asked)
    except (ModelRefused, ReplicaUnavailable) as error:
        if asked.json:
            _write(json.dumps({"error": {"reason": error.reason, "message": error.message}}))
        else:
            _say(f"error: {error.message}")
        return EXIT_REFUSED if isinstance(error, ModelRefused) else EXIT_CRASHED
    if asked.json:
        _write(json.dumps(answer))
    return 0


def run_build(asked: argparse.Namespace) -> dict[str, Any]:
    """Build into a new directory, or into the cache."""
    from tidegate_runtime.artifact.output import check_output
    from tidegate_runtime.artifact.resolve import check_digest, resolve

    output: Path | None = asked.output
    if output is not None:
        check_output(output)
    asked.cache_dir.mkdir(parents=True, exist_ok=True)
    resolved = resolve(asked.source, asked.revision, asked.cache_dir)
    check_digest(resolved, asked.expect_digest)
    store = ArtifactStore(asked.cache_dir, asked.cache_limit_bytes)
    path = store.path(artifact_key(resolved.digest, asked.precision))
    if output is not None or not path.is_dir():
        from tidegate_runtime.artifact.build import BuildOrder, QualityCheck, open_build
        from tidegate_runtime.artifact.cache import publish

        _use_threads(asked.threads)
        quality = QualityCheck(
            wanted=not asked.no_quality, text=asked.text, max_ratio=asked.max_perplexity_ratio
        )
        name = asked.name or (output.name if output else Path(asked.source).stem)
        build = open_build(BuildOrder(resolved, asked.precision, name, quality, _say))
        if output is None:
            path = store.publish(artifact_key(resolved.digest, build.precision), build.fill)
        else:
            publish(output, build.fill)
            path = output
    return _tell_built(path, as_json=asked.json)


def run_compress(asked: argparse.Namespace) -> dict[str, Any]:
    """Make a smaller model, and measure what that costs."""
    _use_threads(asked.threads)
    answer = compress.run(asked, _say)
    if not asked.json:
        *_, row = answer["rows"]
        _table([(name.replace("_", " "), _number(value)) for name, value in row.items()])
    return answer


def run_quality(asked: argparse.Namespace) -> dict[str, Any]:
    """Measure an artifact on a text, beside the weights it was made from."""
    from tidegate_runtime.artifact.measure import Measurement, measure
    from tidegate_runtime.artifact.open import open_artifact

    _use_threads(asked.threads)
    artifact = open_artifact(asked.artifact)
    order = Measurement(
        text=asked.text,
        window=asked.window,
        windows=asked.windows,
        reference=asked.reference,
        alone=asked.no_reference,
        kv=asked.kv,
        cache_dir=asked.cache_dir,
    )
    entry, note = measure(artifact, order, _say)
    if note is not None:
        _say(f"note: {note}")
    if not asked.json:
        rows = entry.model_dump(exclude_none=True)
        _table([(name.replace("_", " "), _number(value)) for name, value in rows.items()])
    return {**entry.model_dump(), "note": note, "precision": artifact.manifest.precision}


def run_key(asked: argparse.Namespace) -> dict[str, Any]:
    """Tell by which name the cache knows what this version builds of a model."""
    key = artifact_key(asked.digest, asked.precision)
    if not asked.json:
        _write(key)
    return {"key": key}


def run_list(asked: argparse.Namespace) -> dict[str, Any]:
    """Show what the cache holds."""
    items = ArtifactStore(asked.cache_dir).items()
    if not asked.json:
        for item in items:
            held = "  in use" if item.held else ""
            _write(f"{item.key}  {item.size_bytes / _MIB:8.1f} MiB  {describe(item)}{held}")
        if not items:
            _say(f"there are no artifacts in {asked.cache_dir}")
    return {"artifacts": [_fields(item) for item in items]}


def run_prune(asked: argparse.Namespace) -> dict[str, Any]:
    """Remove what was unused for longest."""
    removed = ArtifactStore(asked.cache_dir).prune(limit_bytes=asked.cache_limit_bytes)
    freed = sum(item.size_bytes for item in removed)
    if not asked.json:
        _write(f"removed {len(removed)} artifacts, {freed / _MIB:.1f} MiB")
    return {"removed": [_fields(item) for item in removed], "freed_bytes": freed}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tidegate_runtime.artifact", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, run: Callable[[argparse.Namespace], dict[str, Any]]) -> Any:
        made = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="one JSON object as the result")
        made.add_argument("--cache-dir", type=Path, default=default_cache())
        made.add_argument("--parent-pid", type=int, help="end when this process does")
        return made

    build = command("build", run_build)
    build.add_argument(
        "source", help="a directory, a .gguf file, s3://bucket/prefix, hf://org/name"
    )
    build.add_argument("--precision", choices=PRECISIONS, default="auto")
    build.add_argument("--output", type=Path, help="a new directory; the cache when absent")
    build.add_argument("--name", help="what the model is called when it is served alone")
    build.add_argument("--revision", help="a hub commit, tag or branch")
    build.add_argument("--expect-digest", help="refuse a source with another digest")
    build.add_argument("--threads", type=int, help="every core when absent")
    build.add_argument("--text", type=Path, help="measure on this, not on built-in prose")
    build.add_argument("--max-perplexity-ratio", type=float, help="the bound to refuse above")
    build.add_argument("--no-quality", action="store_true", help="do not measure")
    build.add_argument("--cache-limit-bytes", type=int, default=LIMIT_BYTES)

    compress.add_arguments(command("compress", run_compress))

    quality = command("quality", run_quality)
    quality.add_argument("artifact", type=Path)
    quality.add_argument("--reference", help="the source to compare with; its own when absent")
    quality.add_argument("--no-reference", action="store_true", help="perplexity only")
    quality.add_argument("--text", type=Path, help="built-in prose when absent")
    quality.add_argument("--window", type=int, default=512, help="tokens of a window")
    quality.add_argument("--windows", type=int, help="the first so many only")
    quality.add_argument("--kv", choices=("bf16", "int8", "fp8", "fp32"))
    quality.add_argument("--threads", type=int, help="every core when absent")

    key = command("key", run_key)
    key.add_argument("digest", help="of the model, as its plan has it")
    key.add_argument("--precision", choices=PRECISIONS[1:], required=True)

    command("list", run_list)
    prune = command("prune", run_prune)
    prune.add_argument("--cache-limit-bytes", type=int, default=LIMIT_BYTES)
    return parser


def _tell_built(path: Path, *, as_json: bool) -> dict[str, Any]:
    from tidegate_runtime.artifact.open import read_manifest

    manifest = read_manifest(path)
    quality = manifest.quality
    if not as_json:
        rows = [
            ("artifact", str(path)),
            ("precision", manifest.precision),
            ("weights", f"{manifest.weights_bytes / _MIB:.1f} MiB"),
        ]
        if quality is not None:
            rows.append(("perplexity", _number(quality.perplexity)))
            if quality.ratio is not None:
                rows.append(("to the source", f"{quality.ratio:.4f} times"))
                rows.append(("same tokens", f"{quality.agreement:.1%}"))
        if manifest.quality_note:
            rows.append(("quality", manifest.quality_note))
        _table(rows)
    return {
        "artifact": str(path),
        "name": manifest.name,
        "precision": manifest.precision,
        "weights_bytes": manifest.weights_bytes,
        "memory": manifest.memory.model_dump(),
        "quality": quality.model_dump() if quality is not None else None,
        "quality_note": manifest.quality_note,
    }


def _fields(item: Any) -> dict[str, Any]:
    return {**vars(item), "path": str(item.path)}


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        _write(f"{name:<{width}}  {text}")


def default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "tidegate"


def prepare_libraries() -> None:
    """Set what libraries read from the environment as they load: see docs/decisions/007."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _use_threads(count: int | None) -> None:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(count or len(os.sched_getaffinity(0)))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
