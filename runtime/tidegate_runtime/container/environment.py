"""From a container's environment to a replica's configuration.

Every setting is a field of `ReplicaConfig` in upper case behind `TIDEGATE_`; what is no such field
is refused, so that a misspelt one is not lost. Objects (adapters, draft, heads, kv_spill,
speculation, telemetry) are JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from tidegate.protocol.replica import TOKEN_VARIABLE, ReplicaConfig
from tidegate_runtime.artifact.manifest import MANIFEST
from tidegate_runtime.artifact.open import read_manifest
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.server.__main__ import check_traces

PREFIX = "TIDEGATE_"
MODEL_VARIABLE = "SM_MODEL_DIR"
MODEL_DIRECTORY = "/opt/ml/model"
"""Where SageMaker puts a model, read-only."""
PORT = 8080
DRAIN_S = 25.0
"""SageMaker kills a container 30 seconds after it asked it to stop."""

_S3 = "s3://"
_GIVEN = frozenset({"replica_id", "host", "status_path", "status_bell", "parent_pid"})
"""Fields that are the container's own."""
_OBJECTS = frozenset({"adapters", "draft", "heads", "kv_spill", "speculation", "telemetry"})
_KNOWN = tuple(
    sorted(f"{PREFIX}{name.upper()}" for name in ReplicaConfig.model_fields if name not in _GIVEN)
)


def replica_config(environment: Mapping[str, str]) -> ReplicaConfig:
    """Raises ModelRefused (BadConfig) that names every variable at fault, and what finding the
    model raises. An artifact in S3 is brought here first.
    """
    told = {"cache_dir": str(_cache_dir(environment)), **_fields(environment)}
    source = told.get("source") or environment.get(MODEL_VARIABLE) or MODEL_DIRECTORY
    told["source"] = source = _brought(source, Path(told["cache_dir"]))
    if "model_name" not in told:
        told["model_name"] = _name(source)
    fields: dict[str, Any] = {
        "device": "auto",
        "drain_s": DRAIN_S,
        "port": PORT,
        **told,
        "replica_id": f"container-{os.uname().nodename}",
        "host": "0.0.0.0",
        "status_path": None,
    }
    try:
        config = ReplicaConfig.model_validate(fields)
    except pydantic.ValidationError as error:
        raise _bad(
            f"{_variable(item['loc'])}: {item['input']!r}: {item['msg']}; change it, or remove it"
            for item in error.errors(include_url=False)
        ) from error
    check_traces(config, f"{PREFIX}TELEMETRY: otlp_endpoint")
    return config


def _fields(environment: Mapping[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    wrong: list[str] = []
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable == TOKEN_VARIABLE:
            continue
        name, text = variable.removeprefix(PREFIX).lower(), environment[variable]
        if variable not in _KNOWN:
            wrong.append(f"{variable}: {text!r} sets nothing; use one of {', '.join(_KNOWN)}")
        elif not text:
            wrong.append(f"{variable}: '' says nothing; give it a value, or remove it")
        else:
            try:
                told[name] = json.loads(text) if name in _OBJECTS else text
            except ValueError as error:
                wrong.append(f"{variable}: {text!r} is not JSON ({error}); write a JSON object")
    if wrong:
        raise _bad(wrong)
    return told


def _brought(source: str, cache_dir: Path) -> str:
    """Where an artifact in S3 is on this machine; any other source as it is."""
    if not source.startswith(_S3):
        return source
    from tidegate_runtime.artifact.s3 import fetch_artifact

    found = fetch_artifact(source.removeprefix(_S3), cache_dir)
    return source if found is None else str(found)


def _name(source: str) -> str:
    """The artifact's own name."""
    if not (Path(source) / MANIFEST).is_file():
        raise _bad(
            [f"{PREFIX}MODEL_NAME: None names no model, and {source!r} is no artifact; set it"]
        )
    return read_manifest(Path(source)).name


def _cache_dir(environment: Mapping[str, str]) -> Path:
    """By the XDG base directory rules."""
    home = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "/tmp")) / ".cache"
    return Path(home) / "tidegate"


def _variable(place: tuple[int | str, ...]) -> str:
    first, *rest = map(str, place)
    return ".".join([f"{PREFIX}{first.upper()}", *rest])


def _bad(wrong: Any) -> ModelRefused:
    return ModelRefused("BadConfig", "; ".join(wrong))
