"""Measure a smaller model that has just been made, and write what was found into its artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tidegate_runtime.artifact.build import write_manifest
from tidegate_runtime.artifact.checkpoint import Checkpoint
from tidegate_runtime.artifact.manifest import (
    CompressionEntry,
    Manifest,
    QualityEntry,
    default_kv,
)
from tidegate_runtime.artifact.measure import NO_ROOM, measure_decoder, read_text
from tidegate_runtime.artifact.open import describe_file, read_manifest
from tidegate_runtime.artifact.pack import as_values
from tidegate_runtime.artifact.prose import builtin_prose
from tidegate_runtime.artifact.quality import (
    WINDOW_TOKENS,
    Logits,
    reference_dtype,
    reference_logits,
)
from tidegate_runtime.artifact.safetensors import weight_files
from tidegate_runtime.artifact.speed import measure_speed
from tidegate_runtime.compress.calibration import text_digest
from tidegate_runtime.compress.plot import draw
from tidegate_runtime.compress.report import (
    PLOT,
    REPORT,
    CompressReport,
    ReportRow,
    result_row,
)
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.open import open_decoder


@dataclass(frozen=True)
class Assessment:
    """How the result is measured: on `text`, None for the built-in prose, which the methods must
    not have seen. Above `max_ratio` times the source's perplexity it is refused.
    """

    text: Path | None
    windows: int
    max_ratio: float | None
    threads: int | None

    def check_held_out(self, calibration_digest: str) -> None:
        """Raises ModelRefused (TextNotHeldOut) for the text of the calibration."""
        content = builtin_prose() if self.text is None else read_text(self.text)
        if text_digest(content) == calibration_digest:
            raise ModelRefused(
                "TextNotHeldOut",
                f"--quality-text {str(self.text or 'built-in prose')!r} is the text of the "
                "calibration, on which every method looks better than it is; give another",
            )


def assess(
    directory: Path,
    source: Checkpoint,
    entry: CompressionEntry,
    layer_errors: list[dict[str, float]],
    how: Assessment,
) -> CompressReport:
    """Measure the artifact in `directory`; its manifest then tells of it, and lists the report.

    Raises ModelRefused (QualityBound).
    """
    manifest = read_manifest(directory)
    quality = _quality(directory, manifest, source, how)
    _check_bound(quality, manifest, how.max_ratio)
    kv = default_kv(manifest.precision)
    speed = measure_speed(
        open_decoder(directory, threads=how.threads, kv=kv),
        source.tokenizer,
        context_tokens=manifest.context_tokens,
    )
    row = result_row(
        "+".join(entry.methods) or manifest.precision,
        manifest.precision,
        weights_bytes=manifest.weights_bytes,
        memory_bytes=manifest.memory.weights + manifest.memory.activations,
        quality=quality,
        speed=speed,
    )
    report = CompressReport(
        compression=entry,
        text=quality.text,
        tokens=quality.tokens,
        window=quality.window,
        rows=[*_source_rows(source, quality), row],
        layer_errors=layer_errors,
    )
    (directory / REPORT).write_text(report.model_dump_json(indent=2) + "\n")
    (directory / PLOT).write_text(draw(report))
    files = {name: describe_file(directory / name) for name in (REPORT, PLOT)}
    note = NO_ROOM if quality.ratio is None else None
    update = {
        "compression": entry,
        "quality": quality,
        "quality_note": note,
        "files": {**manifest.files, **files},
    }
    write_manifest(directory, manifest.model_copy(update=update))
    return report


def _quality(
    directory: Path, manifest: Manifest, source: Checkpoint, how: Assessment
) -> QualityEntry:
    reference = _reference(source)
    entry = measure_decoder(
        open_decoder(directory, threads=how.threads, kv=default_kv(manifest.precision)),
        source.tokenizer,
        how.text,
        window=min(WINDOW_TOKENS, manifest.context_tokens),
        count=how.windows,
        reference=reference,
    )
    return entry.model_copy(
        update={"bound": how.max_ratio, "reference": reference and str(source.path)}
    )


def _reference(source: Checkpoint) -> Logits | None:
    dtype = reference_dtype(source)
    if dtype is None:
        return None
    state = {name: as_values(weight).to(dtype) for name, weight in source.tensors()}
    return reference_logits(source, state, dtype)


def _source_rows(source: Checkpoint, quality: QualityEntry) -> list[ReportRow]:
    if quality.reference_perplexity is None:
        return []
    is_file = source.kind == "gguf"
    files = [source.path] if is_file else weight_files(source.path)
    return [
        ReportRow(
            name="source",
            precision=f"{source.stored_bits} bits",
            weights_bytes=sum(path.stat().st_size for path in files),
            perplexity=quality.reference_perplexity,
        )
    ]


def _check_bound(quality: QualityEntry, manifest: Manifest, bound: float | None) -> None:
    if bound is None or quality.ratio is None or quality.ratio <= bound:
        return
    raise ModelRefused(
        "QualityBound",
        f"{manifest.source.location!r} made smaller has {quality.ratio:.4f} times the perplexity "
        f"of its source ({quality.perplexity:.3f} against {quality.reference_perplexity:.3f}), and "
        f"{bound:g} is allowed; use a milder method, or raise --max-perplexity-ratio",
    )
