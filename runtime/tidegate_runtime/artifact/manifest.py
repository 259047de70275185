"""What an artifact says about itself: `manifest.json`."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT = 1
"""The version of the directory's layout; another one is refused."""
PACKING = 1
"""The version of how codes lie in memory (ops/quantized.py)."""
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
PART_BYTES = 16 * 1024 * 1024
"""A file is hashed in parts of this size, so that several threads can verify one file."""

Precision = Literal["fp32", "bf16", "int8", "int4"]
BITS: dict[str, int] = {"int4": 4, "int8": 8, "bf16": 16}
"""Bits of a linear layer's codes by precision; fp32 keeps all weights dense."""
HEAD_BITS: dict[str, int] = {"int4": 8, "int8": 8, "bf16": 16}
"""The same of the last layer, which is the embedding too when they are tied."""


def default_kv(precision: str) -> str:
    """The precision of keys and values beside that of the weights, unless another is asked for."""
    return "int8" if precision == "int4" else precision


class _Part(BaseModel):
    """Closed to nothing: a later version of format 1 may add fields."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class LinearEntry(_Part):
    """A packed linear layer: `[out, in]` in codes of so many bits."""

    bits: Literal[4, 8, 16]
    out: int = Field(ge=1)
    inputs: int = Field(ge=1, alias="in")


class FileEntry(_Part):
    """A file as it must be. `parts` are the digests of every 16 MiB, for files larger than that."""

    bytes: int = Field(ge=0)
    sha256: str
    parts: list[str] = []


class SourceEntry(_Part):
    """What was built from."""

    location: str
    revision: str | None = None
    digest: str
    kind: Literal["safetensors", "gguf"]


class MemoryEntry(_Part):
    """Predicted memory of a replica, in bytes, beside that of its process."""

    weights: int
    activations: int
    kv_per_token: dict[str, int] = Field(description="by precision of the KV cache")


class QualityEntry(_Part):
    """How the artifact compares with its source on a text; see quality.py for the protocol."""

    text: str
    tokens: int = Field(description="tokens that were predicted")
    window: int
    perplexity: float
    reference: str | None = Field(default=None, description="what it was compared with")
    reference_perplexity: float | None = None
    ratio: float | None = Field(default=None, description="perplexity by that of the reference")
    agreement: float | None = Field(default=None, description="share of equal greedy tokens")
    mean_kl: float | None = Field(default=None, description="nats, reference to artifact")
    bound: float | None = Field(default=None, description="the ratio allowed at build")


class CompressionEntry(_Part):
    """How a smaller model was made; absent when only a precision was chosen.

    `kept_layers` are the numbers of the source's layers, where some were dropped; `text` and the
    windows are of the calibration.
    """

    methods: list[str]
    parameters: dict[str, float | int | str | bool] = {}
    kept_layers: list[int] | None = None
    text: str | None = None
    text_digest: str | None = None
    window: int | None = None
    windows: int | None = None


class Manifest(_Part):
    """`manifest.json`. `files` holds every other file of the directory."""

    format: int
    packing: int
    precision: Precision
    device: str = "cpu"
    name: str
    source: SourceEntry
    architecture: str
    context_tokens: int
    tied: bool
    linears: dict[str, LinearEntry]
    experts: dict[str, int] = Field(
        default={}, description="stacks of experts, whose linears are <stack>.0 and so on"
    )
    files: dict[str, FileEntry]
    weights_bytes: int
    memory: MemoryEntry
    compression: CompressionEntry | None = None
    quality: QualityEntry | None = None
    quality_note: str | None = Field(default=None, description="why something was not measured")
    tidegate: str
    transformers: str
    created: str


def artifact_digest(manifest: Manifest) -> str:
    """One name for all that an artifact's files hold, whenever and wherever it was built."""
    digests = sorted(f"{name} {entry.sha256}" for name, entry in manifest.files.items())
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
