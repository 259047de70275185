"""Adapters on disk, and a tiny model to serve them with."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runtime.adapters.tiny_adapters import attach, save
from tests.unit.runtime.tiny_decoders import make_decoder, packed_weights, tiny_model

from tidegate_runtime.adapters.load import AdapterLoader
from tidegate_runtime.models.base import Decoder

SaveAdapter = Callable[..., Path]


@pytest.fixture
def tiny_decoder() -> Decoder:
    model = tiny_model("Llama", tie_word_embeddings=True)
    return make_decoder("torch", model.config, packed_weights(model, 16))


@pytest.fixture
def loader(tiny_decoder: Decoder, tmp_path: Path) -> AdapterLoader:
    return AdapterLoader(tiny_decoder, tmp_path / "cache")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SaveAdapter:
    """Save a random adapter of the tiny model, as PEFT does; equal ones once."""
    root = tmp_path_factory.mktemp("adapters")

    @functools.cache
    def make(**options: Any) -> Path:
        model = tiny_model("Llama", tie_word_embeddings=True)
        options = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}
        return save(attach(model, **options), root / str(len(list(root.iterdir()))))

    return make


@pytest.fixture
def save_adapter(saved: SaveAdapter, tmp_path: Path) -> SaveAdapter:
    """An adapter of one's own in a directory of this name."""

    def make(name: str, **options: Any) -> Path:
        return shutil.copytree(saved(**options), tmp_path / name, dirs_exist_ok=True)

    return make
