"""Build an artifact: from a source, tensor by tensor, to a directory that is only mapped later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from tidegate.version import VERSION
from tidegate_runtime.artifact.checkpoint import Checkpoint, open_checkpoint
from tidegate_runtime.artifact.guard import EXHAUSTED, guarded
from tidegate_runtime.artifact.manifest import (
    FORMAT,
    MANIFEST,
    PACKING,
    WEIGHTS,
    Manifest,
    MemoryEntry,
    SourceEntry,
    default_kv,
)
from tidegate_runtime.artifact.measure import NO_ROOM, measure_decoder
from tidegate_runtime.artifact.open import describe_file
from tidegate_runtime.artifact.pack import PackedFile, PackPlan, as_values
from tidegate_runtime.artifact.quality import (
    RATIO_BOUNDS,
    WINDOW_TOKENS,
    reference_dtype,
    reference_logits,
)
from tidegate_runtime.artifact.resolve import Resolved
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable
from tidegate_runtime.models.open import open_decoder
from tidegate_runtime.ops.abi import kernels
from tidegate_runtime.ops.compiler import CompilerMissing
from tidegate_runtime.ops.kv_pool import KV_DTYPES, kv_shape
from tidegate_runtime.ops.quantized import GROUP

STEP_ROWS = 512
"""Rows of one step that memory is predicted for."""
LOGIT_ROWS = 64
QUALITY_WINDOWS = 2
"""Of the built-in prose: enough to tell a broken precision, and seconds for a small model."""


@dataclass(frozen=True)
class QualityCheck:
    """How a build is measured. `text` None takes the built-in prose, `max_ratio` None the bound of
    the precision; when not `wanted`, nothing is measured and the manifest says so.
    """

    wanted: bool = True
    text: Path | None = None
    max_ratio: float | None = None


@dataclass(frozen=True)
class BuildOrder:
    """What to build. `precision` may be `auto`; `say` is told of the progress."""

    source: Resolved
    precision: str
    name: str
    quality: QualityCheck
    say: Callable[[str], None]


@dataclass(frozen=True)
class Build:
    """A source that was read but for its weights, and the precision it gets."""

    order: BuildOrder
    checkpoint: Checkpoint
    precision: str

    def fill(self, directory: Path) -> None:
        """Make the artifact in an empty directory. Raises ModelRefused (its weights, its quality)
        and ReplicaUnavailable (memory, disk).
        """
        try:
            _fill(self, directory)
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            raise ReplicaUnavailable(
                "ResourcesExhausted",
                f"cannot write the artifact {str(directory)!r}: {error.strerror}; free some space",
            ) from error


def open_build(order: BuildOrder) -> Build:
    """Read all of a source but its weights. Raises ModelRefused."""
    order.say(f"reading {order.source.source}")
    checkpoint = open_checkpoint(order.source.files)
    inputs = {shape[1] for shape in checkpoint.skeleton.linears.values()}
    precision = choose_precision(order.precision, checkpoint.stored_bits, inputs)
    if precision not in RATIO_BOUNDS:
        raise ModelRefused(
            "UnsupportedPrecision",
            f"precision {precision!r} cannot be built; use one of {', '.join(RATIO_BOUNDS)}",
        )
    return Build(order, checkpoint, precision)


def choose_precision(asked: str, stored_bits: int, inputs: set[int]) -> str:
    """What `auto` stands for on a CPU: the 4 bits that the source has, else 8, else nothing."""
    if asked != "auto":
        return asked
    if any(count % GROUP for count in inputs):
        return "fp32"
    return "int4" if stored_bits == 4 else "int8"


def _fill(build: Build, directory: Path) -> None:
    order, checkpoint, precision = build.order, build.checkpoint, build.precision
    skeleton = checkpoint.skeleton
    context = _context(checkpoint)
    plan = PackPlan.of(skeleton, precision)
    # Kept only where the source is to be compared with, and there is memory for it.
    dtype = reference_dtype(checkpoint) if order.quality.wanted else None
    state: dict[str, torch.Tensor] = {}
    size = _write_weights(order, checkpoint, plan, directory / WEIGHTS, state, dtype)
    _write_rest(checkpoint, directory)
    manifest = Manifest(
        format=FORMAT,
        packing=PACKING,
        precision=precision,
        name=order.name,
        source=SourceEntry(
            location=order.source.source,
            revision=order.source.revision,
            digest=order.source.digest,
            kind=checkpoint.kind,
        ),
        architecture=skeleton.architecture,
        context_tokens=context,
        tied=skeleton.tied,
        linears=dict(plan.linears),
        experts=dict(skeleton.experts) if plan.linears else {},
        files={path.name: describe_file(path) for path in sorted(directory.iterdir())},
        weights_bytes=size,
        memory=_memory(checkpoint.config, size),
        tidegate=VERSION,
        transformers=transformers.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_manifest(directory, manifest)
    _compile_kernels(order)
    update: dict[str, Any] = {"quality_note": "not measured, as asked"}
    if order.quality.wanted:
        order.say("measuring the quality")
        update = _measure(order.quality, checkpoint, manifest, directory, state, dtype)
    write_manifest(directory, manifest.model_copy(update=update))


def _write_weights(
    order: BuildOrder,
    checkpoint: Checkpoint,
    plan: PackPlan,
    path: Path,
    state: dict[str, torch.Tensor],
    dtype: torch.dtype | None,
) -> int:
    """Write the weights, and keep them in `state` too when there is a `dtype` for that."""
    tensors = plan.tensors()
    total = len(checkpoint.empty.state_dict())
    with PackedFile(path, tensors) as file:
        for count, (name, weight) in enumerate(checkpoint.tensors()):
            if count % max(1, total // 10) == 0:
                order.say(f"packing {plan.precision}: {count} of {total} tensors")
            for part, tensor in plan.pack(name, weight).items():
                file.write(part, tensor)
            if dtype is not None:
                state[name] = as_values(weight).to(dtype)
        file.finish(checkpoint.path)
    return sum(tensor.size_bytes for tensor in tensors.values())


def _write_rest(checkpoint: Checkpoint, directory: Path) -> None:
    """Configuration, tokenizer with its chat template, and what the author says of sampling."""

    def write() -> None:
        checkpoint.config.architectures = [checkpoint.skeleton.architecture]
        checkpoint.config.save_pretrained(directory)
        checkpoint.tokenizer.save_pretrained(directory)

    guarded(checkpoint.path, write)
    for path in directory.iterdir():
        if path.is_dir():  # further chat templates, which no request can name
            shutil.rmtree(path)
    if checkpoint.generation:
        text = _json(dict(checkpoint.generation))
        (directory / "generation_config.json").write_text(text)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, or replace it."""
    text = _json(manifest.model_dump(mode="json", by_alias=True))
    (directory / MANIFEST).write_text(text)


def _measure(
    check: QualityCheck,
    checkpoint: Checkpoint,
    manifest: Manifest,
    directory: Path,
    state: dict[str, torch.Tensor],
    dtype: torch.dtype | None,
) -> dict[str, Any]:
    """The fields of the manifest that tell of the quality. Raises ModelRefused (QualityBound)."""
    reference = None
    if dtype is not None:
        reference = reference_logits(checkpoint, state, dtype)
        state.clear()
    bound = check.max_ratio or RATIO_BOUNDS[manifest.precision]
    entry = measure_decoder(
        open_decoder(directory, threads=None, kv=default_kv(manifest.precision)),
        checkpoint.tokenizer,
        check.text,
        window=min(WINDOW_TOKENS, manifest.context_tokens),
        count=QUALITY_WINDOWS if check.text is None else None,
        reference=reference,
    ).model_copy(update={"bound": bound, "reference": reference and str(checkpoint.path)})
    if entry.ratio is not None and not entry.ratio <= bound:
        raise ModelRefused(
            "QualityBound",
            f"{manifest.source.location!r} in {manifest.precision} has {entry.ratio:.4f} times the "
            f"perplexity of its source ({entry.perplexity:.3f} against "
            f"{entry.reference_perplexity:.3f}; {entry.agreement:.1%} of its greedy tokens agree), "
            f"and {bound:g} is allowed; use a higher precision, or raise --max-perplexity-ratio",
        )
    return {"quality": entry, "quality_note": None if reference else NO_ROOM}


def _compile_kernels(order: BuildOrder) -> None:
    """Compiled now, once for this machine, so that no start has to wait for it."""
    order.say("compiling the kernels, unless they are")
    try:
        kernels()
    except CompilerMissing as error:
        order.say(f"without compiled kernels this will be slow: {error}")


def _context(checkpoint: Checkpoint) -> int:
    value = getattr(checkpoint.config.get_text_config(), "max_position_embeddings", None)
    if not value:
        raise ModelRefused(
            "UnsupportedModel",
            f"{str(checkpoint.path)!r} does not say its context length (max_position_embeddings); "
            "add it to its config.json",
        )
    return int(value)


def _memory(config: Any, weights: int) -> MemoryEntry:
    """Prediction for a replica: a step's activations, and the cache by the precision it is in."""
    text = config.get_text_config()
    heads = int(text.num_attention_heads)
    head_dim = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    kv_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    layers = int(text.num_hidden_layers)
    inner = int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size)
    width = 4 * int(text.hidden_size) + 2 * inner + 2 * (heads + kv_heads) * head_dim
    item = torch.float32.itemsize
    return MemoryEntry(
        weights=weights,
        activations=item * (STEP_ROWS * width + LOGIT_ROWS * int(text.vocab_size)),
        kv_per_token={
            kind: kv_shape(layers, kv_heads, head_dim, kind).token_bytes for kind in KV_DTYPES
        },
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
