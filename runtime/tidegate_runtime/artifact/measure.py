"""Measure a decoder, or an artifact as it lies on disk, on a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate_runtime.artifact.checkpoint import load_tokenizer, open_checkpoint
from tidegate_runtime.artifact.manifest import QualityEntry, default_kv
from tidegate_runtime.artifact.open import Artifact
from tidegate_runtime.artifact.pack import as_values
from tidegate_runtime.artifact.prose import builtin_name, builtin_prose
from tidegate_runtime.artifact.quality import (
    Logits,
    compare,
    decoder_logits,
    reference_dtype,
    reference_logits,
    windows,
)
from tidegate_runtime.artifact.resolve import resolve
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.models.open import open_decoder

NO_ROOM = "not compared with the source, whose weights do not fit into the memory left"


@dataclass(frozen=True)
class Measurement:
    """How to measure an artifact. `text` None is the built-in prose, `windows` None all of it.

    `reference` is a source; None takes that of the artifact, unless it is to be measured `alone`.
    """

    text: Path | None
    window: int
    windows: int | None
    reference: str | None
    alone: bool
    kv: str | None
    cache_dir: Path


def measure(
    artifact: Artifact, order: Measurement, say: Callable[[str], None]
) -> tuple[QualityEntry, str | None]:
    """The figures, and why there is nothing to compare with where there is not.

    Raises ModelRefused and ReplicaUnavailable.
    """
    if not 2 <= order.window <= artifact.manifest.context_tokens:
        raise ModelRefused(
            "BadWindow",
            f"a window of {order.window} tokens is not within 2..{artifact.manifest.context_tokens}"
            ", the model's context; choose another",
        )
    reference, note = (None, None) if order.alone else _reference(artifact, order, say)
    say("measuring")
    entry = measure_decoder(
        open_decoder(
            artifact.root, threads=None, kv=order.kv or default_kv(artifact.manifest.precision)
        ),
        load_tokenizer(artifact.root),
        order.text,
        window=order.window,
        count=order.windows,
        reference=reference,
    )
    name = order.reference or artifact.manifest.source.location
    return entry.model_copy(update={"reference": name if reference else None}), note


def measure_decoder(
    decoder: Decoder,
    tokenizer: Any,
    text: Path | None,
    *,
    window: int,
    count: int | None,
    reference: Logits | None,
) -> QualityEntry:
    """The figures of a decoder on a text file, or on the built-in prose."""
    content = builtin_prose() if text is None else read_text(text)
    tokens = tokenizer(content, add_special_tokens=False, verbose=False)["input_ids"]
    found = compare(windows(tokens, window, count), decoder_logits(decoder, window), reference)
    return QualityEntry(
        text=builtin_name(content) if text is None else str(text),
        tokens=found.tokens,
        window=window,
        perplexity=found.perplexity,
        reference_perplexity=found.reference_perplexity,
        ratio=found.ratio,
        agreement=found.agreement,
        mean_kl=found.mean_kl,
    )


def _reference(
    artifact: Artifact, order: Measurement, say: Callable[[str], None]
) -> tuple[Logits | None, str | None]:
    source = artifact.manifest.source
    location = order.reference or source.location
    revision = None if order.reference else source.revision
    say(f"reading {location}")
    try:
        resolved = resolve(location, revision, order.cache_dir)
    except (ModelRefused, ReplicaUnavailable) as error:
        if order.reference is not None:
            raise
        return None, f"not compared with the source: {error.message}"
    if order.reference is None and resolved.digest != source.digest:
        return None, f"not compared with {location!r}, which has changed since the build"
    checkpoint = open_checkpoint(resolved.files)
    dtype = reference_dtype(checkpoint)
    if dtype is None:
        return None, NO_ROOM
    state = {name: as_values(weight).to(dtype) for name, weight in checkpoint.tensors()}
    return reference_logits(checkpoint, state, dtype), None


def read_text(path: Path) -> str:
    """A text file, whole. Raises ModelRefused (BadText)."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelRefused("BadText", f"the text {str(path)!r} cannot be read: {error}") from error
