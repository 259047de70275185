"""Settings from a YAML file, with what the command line says over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tidegate.spec.errors import SpecError, explain
from tidegate.spec.text import load
from tidegate_controlplane.errors import StartError
from tidegate_controlplane.settings import Settings


def read_settings(path: Path | None, said: Mapping[str, Any]) -> Settings:
    """The settings of the file at `path`, where `said` does not say otherwise.

    Sections are merged field by field; what `said` has as None it does not say. Raises StartError
    naming the file and each field that is wrong.
    """
    written = _read(path) if path else {}
    try:
        return Settings.model_validate(_over(written, said))
    except ValidationError as error:
        where = f"{path}: " if path else ""
        raise StartError(f"{where}{_sentences(explain(error, Settings))}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        written = load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"--config {str(path)!r}: {error}") from None
    except SpecError as error:
        raise StartError(f"{path}: {error}") from None
    if "data_dir" in written:
        raise StartError(f"{path}: data_dir: it is given by --data; remove it from the file")
    return written


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        if isinstance(value, Mapping):
            section = below.get(name) or {}
            merged[name] = _over(section, value) if isinstance(section, Mapping) else section
        elif value is not None:
            merged[name] = value
    return merged


def _sentences(error: SpecError) -> str:
    return "; ".join(f"{i.field}: {i.message} (got {i.value!r})" for i in error.issues)
