"""Declarations from the command line and from files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tidegate.errors import ConfigurationError, InvalidDeclaration
from tidegate.routes.declare import declaration
from tidegate.spec import DeploymentSpec


def read(file: str) -> list[DeploymentSpec]:
    """Every declaration in a file, or in standard input for '-'.

    Relative model paths are read from the file's folder. Raises ConfigurationError when the file
    cannot be read, InvalidDeclaration when a document is not a declaration.
    """
    base = Path.cwd() if file == "-" else Path(file).expanduser().resolve().parent
    documents = _documents(_text(file), file)
    specs = [_spec(document, base, file, number) for number, document in documents]
    if not specs:
        raise ConfigurationError(f"{file} holds no declaration")
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"{file} declares {', '.join(twice)} more than once")
    return specs


def assembled(fields: Mapping[str, Any], settings: list[str]) -> DeploymentSpec:
    """A declaration from options and `--set` assignments, which win; None is absent."""
    data = _present(fields)
    for setting in settings:
        path, value = _assignment(setting)
        _put(data, path, value, setting)
    return declaration(data)


def labels(pairs: list[str]) -> dict[str, str]:
    """Labels from `key=value` texts."""
    split = [pair.partition("=") for pair in pairs]
    for pair, (key, sign, _) in zip(pairs, split, strict=True):
        if not (key and sign):
            raise ConfigurationError(f"--label {pair!r} is not of the form key=value")
    return {key: value for key, _, value in split}


def _text(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read()
        return Path(file).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file!r} is not text in UTF-8") from error


def _documents(text: str, file: str) -> list[tuple[int, Any]]:
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unreadable"
        raise ConfigurationError(f"{file} is not YAML or JSON{where}: {problem}") from error
    return [(number, each) for number, each in enumerate(documents, start=1) if each is not None]


def _spec(document: Any, base: Path, file: str, number: int) -> DeploymentSpec:
    try:
        return declaration(document, base)
    except InvalidDeclaration as error:
        error.add_note(f"in document {number} of {file}")
        raise


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _present(value) if isinstance(value, Mapping) else value
        for key, value in fields.items()
        if value is not None
    }


def _assignment(setting: str) -> tuple[list[str], Any]:
    path, sign, text = setting.partition("=")
    if not (path and sign):
        raise ConfigurationError(f"--set {setting!r} is not of the form field.name=value")
    try:
        return path.split("."), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--set {setting!r}: the value is not YAML") from error


def _put(data: dict[str, Any], path: list[str], value: Any, setting: str) -> None:
    *parents, last = path
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ConfigurationError(f"--set {setting!r}: {parent} is a value, it has no fields")
    data[last] = value
