"""What a declaration cannot be, told by property; what is not known yet is not judged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails

from tidegate.spec import SpecIssue, explain
from tidegate_infra.provider import names
from tidegate_infra.provider.sdk_faults import UNKNOWN, has_unknown
from tidegate_infra.provider.shapes import Shape


def judge(properties: Mapping[str, Any], model: type[BaseModel]) -> list[SpecIssue]:
    """Every fault of properties that stand for `model`, by the property's path.

    With values that are not known yet, only what is wrong whatever they turn out to be.
    """
    shape = Shape(model=model)
    issues = list(names.misspelt(properties, shape))
    fields = names.to_fields(properties, shape)
    try:
        model.model_validate(_known(fields))
    except ValidationError as error:
        found = explain(_certain(error, fields), model).issues
        issues += [_of_property(issue, model) for issue in found]
    return issues


def reason(issue: SpecIssue, secret: frozenset[str]) -> str:
    """What is wrong, with the value, and what to do. A secret value is not shown."""
    said = issue.message
    if re.split(r"[.\[]", issue.field)[0] in secret:
        for text in sorted(_texts(issue.value), key=len, reverse=True):
            said = said.replace(repr(text), "[secret]").replace(text, "[secret]")
    elif isinstance(issue.value, str | int | float) and str(issue.value) not in said:
        said = f"{said}, got {issue.value!r}"
    return said


def _of_property(issue: SpecIssue, model: type[BaseModel]) -> SpecIssue:
    path = names.property_path(issue.field, Shape(model=model)) if issue.field else ""
    return SpecIssue(path, issue.value, names.in_properties(issue.message, model))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from _texts(each)
    elif value is not None and str(value):
        yield str(value)


def _known(value: Any) -> Any:
    """Without what is not known yet; a list with such a value is not known as a whole."""
    if not isinstance(value, Mapping):
        return value
    known = {key: each for key, each in value.items() if not _is_open(each)}
    return {key: _known(each) for key, each in known.items()}


def _is_open(value: Any) -> bool:
    return bool(value == UNKNOWN) or (isinstance(value, list) and has_unknown(value))


def _certain(error: ValidationError, fields: Any) -> ValidationError:
    """The error without the findings that an unknown value may turn out to mend."""
    if not has_unknown(fields):
        return error
    certain = [
        InitErrorDetails(
            type=each["type"], loc=each["loc"], input=each["input"], ctx=each.get("ctx", {})
        )
        for each in error.errors()
        if each["type"] != "value_error" and not _awaited(each["loc"], fields)
    ]
    return ValidationError.from_exception_data(error.title, certain)


def _awaited(loc: Sequence[Any], fields: Any) -> bool:
    """Whether the place that is said to be missing is one that is not known yet."""
    for part in loc:
        if not isinstance(fields, Mapping):
            return False
        fields = fields.get(part)
        if _is_open(fields):
            return True
    return False
