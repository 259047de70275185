"""YAML and JSON in and out of a spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import yaml
from pydantic import ValidationError

from tidegate.spec.deployment import DeploymentSpec
from tidegate.spec.errors import SpecError, SpecIssue, explain


def parse(declaration: str | Mapping[str, Any]) -> DeploymentSpec:
    """Read a declaration from YAML text, JSON text or a mapping.

    Raises SpecError naming every fault: field, value and remedy.
    """
    data = load(declaration) if isinstance(declaration, str) else dict(declaration)
    try:
        return DeploymentSpec.model_validate(data)
    except ValidationError as error:
        raise explain(error, DeploymentSpec) from None


def load(text: str) -> dict[str, Any]:
    """The mapping that YAML or JSON text holds, not yet a valid declaration.

    Raises SpecError when it is neither, or no mapping.
    """
    data = _load(text)
    if not isinstance(data, dict):
        raise SpecError([SpecIssue("", data, "a declaration is a mapping of fields to values")])
    return data


def dump(spec: DeploymentSpec) -> str:
    """Write a declaration as YAML in ASCII, without the fields left at their defaults."""
    data = spec.model_dump(mode="json", exclude_defaults=True)
    if list(data["model"]) == ["source"]:
        data["model"] = data["model"]["source"]
    text: str = yaml.safe_dump(data, sort_keys=False)
    return text


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            alias: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None,
                None,
                f"aliases (*{alias.anchor}) are not part of a declaration; write it out",
                alias.start_mark,
            )
        return super().compose_node(parent, index)


def _load(text: str) -> Any:
    """JSON first: a JSON string may hold characters that YAML does not allow."""
    try:
        if text.lstrip().startswith("{"):
            with suppress(ValueError):
                return json.loads(text)
        return yaml.load(text, _PlainLoader)
    except (RecursionError, ValueError) as error:  # too deep, or a date such as 2026-13-41
        message = f"not YAML or JSON: {str(error) or type(error).__name__}"
        raise SpecError([SpecIssue("", None, message)]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the text"
        problem = getattr(error, "problem", None) or "unreadable"
        raise SpecError([SpecIssue("", None, f"not YAML or JSON at {where}: {problem}")]) from None
