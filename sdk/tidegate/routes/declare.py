"""From what a caller writes to a declaration, with its local paths made absolute."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tidegate.errors import ConfigurationError, InvalidDeclaration
from tidegate.spec import DeploymentSpec, SpecError, parse

Declared = DeploymentSpec | Mapping[str, Any] | str
"""A spec, a mapping with its fields, or YAML or JSON text."""
Part = BaseModel | Mapping[str, Any]
"""A part of a spec, such as RuntimeSpec, or a mapping with its fields."""


def declaration(declared: Declared, base: Path | None = None) -> DeploymentSpec:
    """The declaration, its relative local paths read from `base` (the working directory if None).

    Raises InvalidDeclaration that names every fault.
    """
    try:
        spec = declared if isinstance(declared, DeploymentSpec) else parse(declared)
    except SpecError as error:
        raise InvalidDeclaration.of(error) from None
    return with_absolute_paths(spec, base or Path.cwd())


def declaration_of(
    source: str | PathLike[str] | DeploymentSpec, name: str | None, fields: Mapping[str, Any]
) -> DeploymentSpec:
    """The declaration that the arguments of `deploy` describe; fields that are None are absent."""
    given = {key: _plain(value) for key, value in fields.items() if value is not None}
    if isinstance(source, DeploymentSpec):
        if name is not None or given:
            extra = ", ".join(filter(None, ["name" if name else "", *given]))
            raise ConfigurationError(
                f"deploy() was given a DeploymentSpec and also {extra}; put them into the spec"
            )
        return declaration(source)
    if name is None:
        raise ConfigurationError("deploy() needs a name: deploy(source, name='...')")
    model = {"source": fspath(source)} | {
        key: given.pop(key) for key in ("revision", "task") if key in given
    }
    return declaration({"name": name, "model": model, "mode": "serverless", **given})


def with_absolute_paths(spec: DeploymentSpec, base: Path) -> DeploymentSpec:
    """The same declaration, naming the same files from any working directory."""
    model = spec.model.model_copy(update={"source": absolute(spec.model.source, base)})
    runtime = spec.runtime.model_copy(
        update={"adapters": {k: absolute(v, base) for k, v in spec.runtime.adapters.items()}}
    )
    speculation = runtime.speculation
    if speculation is not None:
        sources = speculation.model_dump(include={"draft_model", "heads"}, exclude_none=True)
        resolved = {field: absolute(source, base) for field, source in sources.items()}
        runtime = runtime.model_copy(
            update={"speculation": speculation.model_copy(update=resolved)}
        )
    return spec.model_copy(update={"model": model, "runtime": runtime})


def body_of(spec: DeploymentSpec) -> dict[str, Any]:
    """The declaration as JSON, without the fields at their defaults."""
    return spec.model_dump(mode="json", exclude_defaults=True)


def absolute(source: str, base: Path) -> str:
    """The same source, naming the same files from any working directory."""
    if "://" in source:
        return source
    return str((base / Path(source).expanduser()).resolve())


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
