"""Make a smaller model: from a source and a text to an artifact like any other, with its report."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from tidegate.protocol.compress import CompressProgress
from tidegate.version import VERSION
from tidegate_runtime.artifact.build import Build, BuildOrder, QualityCheck
from tidegate_runtime.artifact.cache import publish
from tidegate_runtime.artifact.check import read_config
from tidegate_runtime.artifact.checkpoint import Checkpoint, Weight, open_checkpoint
from tidegate_runtime.artifact.manifest import CompressionEntry
from tidegate_runtime.artifact.open import is_artifact
from tidegate_runtime.artifact.pack import PackPlan
from tidegate_runtime.artifact.resolve import Resolved
from tidegate_runtime.artifact.save import resumable
from tidegate_runtime.compress.assess import Assessment, assess
from tidegate_runtime.compress.calibration import Calibration, read_calibration
from tidegate_runtime.compress.decoder_layers import DecoderLayers
from tidegate_runtime.compress.dropped_layers import check_drop, least_influential, with_layers
from tidegate_runtime.compress.recipe import Recipe
from tidegate_runtime.compress.report import CompressReport
from tidegate_runtime.compress.spool import Spool
from tidegate_runtime.compress.walk import compress_layers, measure_influence
from tidegate_runtime.compress.work import Work, open_work
from tidegate_runtime.errors import ModelRefused


@dataclass(frozen=True)
class CompressOrder:
    """What to make. `text` is the calibration file, None for a recipe that needs none; `advance` is
    told of every step, `say` of what else is worth a line.
    """

    source: Resolved
    recipe: Recipe
    output: Path
    name: str
    text: Path | None
    window: int
    windows: int
    assessment: Assessment
    say: Callable[[str], None]
    advance: Callable[[CompressProgress], None]

    def progress(self, stage: str) -> Callable[[int, int], None]:
        """Tells of the steps of one stage."""
        return lambda done, total: self.advance(
            CompressProgress(stage=stage, done=done, total=total)
        )


@dataclass(frozen=True)
class Smaller:
    """The smaller model before it is packed: its weights by state name, and how it was made."""

    checkpoint: Checkpoint
    entry: CompressionEntry
    layer_errors: list[dict[str, float]]


def compress(order: CompressOrder) -> CompressReport:
    """Make the artifact `order.output`, going on where an earlier run was stopped.

    Raises ModelRefused, and ReplicaUnavailable when memory or disk are short.
    """
    with resumable(order.output):
        return _compress(order)


def _compress(order: CompressOrder) -> CompressReport:
    recipe = order.recipe
    check_source(order.source)
    order.say(f"reading {order.source.source}")
    checkpoint = open_checkpoint(order.source.files)
    PackPlan.of(checkpoint.skeleton, recipe.precision)
    if not recipe.calibrates:
        entry = CompressionEntry(methods=recipe.methods, parameters=recipe.parameters())
        return _publish(order, checkpoint, Smaller(checkpoint, entry, []))
    if order.text is None:
        raise ModelRefused(
            "TextNeeded",
            f"--method {', '.join(recipe.methods)} looks at what a text does to the model; give "
            "--text FILE, some 100 KB of what the model will be used for",
        )
    config = checkpoint.config.get_text_config()
    if recipe.drop_layers is not None:
        check_drop(recipe.drop_layers, int(config.num_hidden_layers))
    calibration = read_calibration(
        order.text,
        checkpoint.tokenizer,
        window=order.window,
        count=order.windows,
        context_tokens=int(config.max_position_embeddings),
    )
    order.assessment.check_held_out(calibration.digest)
    with open_work(order.output, _fingerprint(order, calibration)) as work:
        return _publish(order, checkpoint, _walk(order, checkpoint, calibration, work))


def check_source(source: Resolved) -> None:
    """Refuse what was made small before. Raises ModelRefused (AlreadyBuilt, AlreadyQuantized)."""
    files = source.files
    if files.gguf is not None:
        return
    if is_artifact(files.root):
        raise ModelRefused(
            "AlreadyBuilt",
            f"source {source.source!r} is an artifact; give the model that it was built from",
        )
    config = read_config(files.root / "config.json")
    if settings := config.get("quantization_config"):
        method = settings.get("quant_method", "an unknown method")
        raise ModelRefused(
            "AlreadyQuantized",
            f"source {source.source!r} is quantized by {method} already, and what that lost cannot "
            "be made up for; give its original weights",
        )


def _walk(
    order: CompressOrder, checkpoint: Checkpoint, calibration: Calibration, work: Work
) -> Smaller:
    recipe, windows = order.recipe, calibration.windows
    work.read_source(lambda spool: _spool(checkpoint, spool, order.progress("reading")))
    layers = DecoderLayers(checkpoint.path, checkpoint.config)
    kept: Sequence[int] = range(len(layers))
    if recipe.drop_layers is not None:
        count, told = recipe.drop_layers, order.progress("influence")
        kept = work.kept(
            lambda: least_influential(measure_influence(layers, work.source, windows, told), count)
        )
        checkpoint = with_layers(checkpoint, kept)
        order.say(f"layers that stay: {', '.join(map(str, kept))}")
    if recipe.walks:
        if begun := work.done():
            order.say(f"going on after {begun} of {len(kept)} layers")
        compress_layers(layers, work, kept, windows, recipe, order.progress("layers"))
    entry = CompressionEntry(
        methods=recipe.methods,
        parameters=recipe.parameters(),
        kept_layers=list(kept) if recipe.drop_layers is not None else None,
        text=calibration.name,
        text_digest=calibration.digest,
        window=order.window,
        windows=order.windows,
    )
    prefix = layers.prefix

    def tensors() -> Iterator[tuple[str, Weight]]:
        for name in work.source.names():
            if not name.startswith(prefix):
                yield name, work.source.read(name)
        for index, number in enumerate(kept):
            for name, weight in _layer(work, recipe, f"{prefix}{number}.", index):
                yield f"{prefix}{index}.{name}", weight

    return Smaller(replace(checkpoint, tensors=tensors), entry, work.errors())


def _layer(work: Work, recipe: Recipe, prefix: str, index: int) -> Iterator[tuple[str, Weight]]:
    """A layer's weights by their names within it: the new ones, or those that just stayed."""
    if recipe.walks:
        done = work.layer(index)
        yield from ((name, done.read(name)) for name in done.names())
        return
    for name in work.source.names():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), work.source.read(name)


def _spool(checkpoint: Checkpoint, spool: Spool, told: Callable[[int, int], None]) -> None:
    total = len(checkpoint.empty.state_dict())
    for done, (name, weight) in enumerate(checkpoint.tensors()):
        told(min(done, total), total)
        spool.write(name, weight)


def _publish(order: CompressOrder, source: Checkpoint, smaller: Smaller) -> CompressReport:
    quality = QualityCheck(wanted=False)
    build = Build(
        BuildOrder(order.source, order.recipe.precision, order.name, quality, order.say),
        smaller.checkpoint,
        order.recipe.precision,
    )
    reports: list[CompressReport] = []

    def fill(directory: Path) -> None:
        build.fill(directory)
        order.say("measuring the quality")
        reports.append(
            assess(directory, source, smaller.entry, smaller.layer_errors, order.assessment)
        )

    try:
        publish(order.output, fill)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        raise ModelRefused(
            "OutputExists",
            f"--output {str(order.output)!r} is there already; name a new directory",
        ) from error
    return reports[0]


def _fingerprint(order: CompressOrder, calibration: Calibration) -> Mapping[str, Any]:
    """All that the weights follow from."""
    return {
        "source": order.source.digest,
        "method": order.recipe.methods,
        "precision": order.recipe.precision,
        "parameters": order.recipe.parameters(),
        "text": calibration.digest,
        "window": order.window,
        "windows": order.windows,
        "tidegate": VERSION,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
