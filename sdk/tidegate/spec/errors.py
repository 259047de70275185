"""What is wrong with a spec, said so that it can be mended."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from tidegate.spec.names import PATTERNS

_OF_A_KEY = "[key]"
"""What pydantic adds to a location when the name within a mapping is at fault, not the value."""


@dataclass(frozen=True)
class SpecIssue:
    """One fault: where, which value, what to do."""

    field: str
    value: Any
    message: str


class SpecError(ValueError):
    """A declaration that cannot be; `issues` holds every fault found."""

    def __init__(self, issues: list[SpecIssue]) -> None:
        self.issues = issues
        super().__init__(
            "; ".join(f"{i.field}: {i.message}" if i.field else i.message for i in issues)
        )


def explain(error: ValidationError, model: type[BaseModel]) -> SpecError:
    """Turn pydantic's findings about `model` into sentences, with the nearest known field names."""
    return SpecError([_issue(finding, model) for finding in error.errors()])


def _issue(finding: Any, model: type[BaseModel]) -> SpecIssue:
    path = [str(part) for part in finding["loc"] if part != _OF_A_KEY]
    field, value = ".".join(path), finding.get("input")
    message = str(finding["msg"]).removeprefix("Value error, ")
    if finding["type"] == "extra_forbidden":
        return SpecIssue(field, value, _unknown_field(path, model))
    if finding["type"] == "missing":
        return SpecIssue(field, None, "this field is required")
    head, separator, rest = message.partition(": ")
    if finding["type"] == "value_error" and separator and " " not in head:
        return SpecIssue(".".join([*path, head]), _shown(value, head), rest)
    if finding["type"] == "string_type" and isinstance(value, (int, float)):
        message = "must be a text; put it in quotes"
    if finding["type"] in ("dict_type", "model_type", "model_attributes_type"):
        message = "must be a mapping of fields to values"
    if finding["type"] == "string_pattern_mismatch":
        message = f"must be {_wording(finding['ctx']['pattern'])}"
    return SpecIssue(field, value, f"{message}, got {value!r}")


def _wording(pattern: str) -> str:
    """What a text has to look like, in words where there are some."""
    return PATTERNS.get(pattern, f"a text that matches {pattern}")


def _shown(value: Any, dotted: str) -> Any:
    """The value at a dotted path inside the object that a whole-model check refused."""
    for part in dotted.split("."):
        if isinstance(value, BaseModel):
            value = getattr(value, part, None)
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            return None
    return value


def _unknown_field(path: list[str], model: type[BaseModel]) -> str:
    known = _fields_at(path[:-1], model)
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known fields: {', '.join(sorted(known))}"
    return f"unknown field; {hint}"


def _fields_at(path: list[str], model: type[BaseModel]) -> list[str]:
    """The field names of the model found by walking `path` from `model`."""
    for part in path:
        field = model.model_fields.get(part)
        nested = _model_in(field.annotation) if field else None
        if nested is None:
            break
        model = nested
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model in an annotation such as `Model | None`."""
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
