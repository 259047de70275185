"""From an adapter's source to weights that a decoder runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tidegate_runtime.adapters.read import Lora, read_lora
from tidegate_runtime.adapters.source import fetch_adapter
from tidegate_runtime.artifact.memory import check_bytes_fit
from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.models.base import Decoder


@dataclass(frozen=True)
class AdapterLoader:
    """Brings adapters to one decoder. Slow, and safe to call from any thread."""

    decoder: Decoder
    cache_dir: Path

    def fetch(self, source: str) -> Path:
        """The adapter's files on this machine. Raises ModelRefused, ReplicaUnavailable."""
        return fetch_adapter(source, self.cache_dir)

    def read(self, source: str, directory: Path) -> Lora:
        """The adapter, checked against the model. Raises ModelRefused."""
        return read_lora(source, directory, self.decoder.adaptable())

    def adapt(self, source: str, lora: Lora) -> Adapter:
        """The adapter as the decoder runs it. Raises ReplicaUnavailable (OutOfMemory)."""
        check_bytes_fit(source, lora.float_bytes)
        return self.decoder.adapt(lora.digest, lora.updates)
