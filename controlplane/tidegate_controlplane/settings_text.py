"""Every setting with its default and what it means, as a YAML file to begin from.

`python -m tidegate_controlplane.settings_text` writes it as JSON, for `tidegate settings`.
"""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from tidegate_controlplane.settings import Settings

WIDTH = 100
GIVEN_APART = frozenset({"data_dir"})
"""By --data, and in no file."""


def settings_text() -> str:
    """The defaults as YAML, each under a comment that says what it is."""
    defaults = Settings(data_dir=Path("/"))
    return "\n".join(_section(defaults, indent="")) + "\n"


def _section(section: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        if name in GIVEN_APART:
            continue
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield ""
            yield from _comment(inspect.getdoc(type(value)) or "", indent)
            yield f"{indent}{name}:"
            yield from _section(value, indent + "  ")
        elif absent := _absent_section(field.annotation):
            yield ""
            yield from _comment(f"{inspect.getdoc(absent)} None when absent. Its fields:", indent)
            yield from (f"{indent}#   {line}" for line in _fields(absent))
            yield f"{indent}{name}: null"
        else:
            yield from _comment(field.description or "", indent)
            yield f"{indent}{name}: {_plain(section, name)}"


def _absent_section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field may have, and has not by default."""
    kinds = [kind for kind in get_args(annotation) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, BaseModel)), None)


def _fields(section: type[BaseModel]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        value = "" if field.is_required() else f" {_written(field.get_default())}"
        yield from _comment(field.description or "", "")
        yield f"{name}:{value}"


def _comment(text: str, indent: str) -> list[str]:
    lead = f"{indent}# "
    return textwrap.wrap(text, WIDTH, initial_indent=lead, subsequent_indent=lead)


def _plain(section: BaseModel, name: str) -> str:
    return _written(section.model_dump(mode="json", include={name})[name])


def _written(value: Any) -> str:
    written: str = yaml.safe_dump(value, default_flow_style=True)
    return written.removesuffix("...\n").strip()


if __name__ == "__main__":
    json.dump({"text": settings_text()}, sys.stdout)
