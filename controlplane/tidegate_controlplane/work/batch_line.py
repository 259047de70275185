"""What one line of a batch's input file asks for. Pure: bytes in, a value out.

A line that is wrong fails alone: it becomes a failed request, which the error file tells of, and
the others run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from tidegate.protocol.openai import error_from_validation
from tidegate.protocol.work import BatchError, BatchLine
from tidegate_controlplane.domain.affinity import affinity
from tidegate_controlplane.domain.routing import expected_work
from tidegate_controlplane.errors import BadRequest, NotFound, Refused
from tidegate_controlplane.gateway.catalog import Catalog, Served
from tidegate_controlplane.work.lines import Line
from tidegate_controlplane.work.outcome import Failure
from tidegate_controlplane.work.request import BATCH_MODES, check, find, parse

MAX_CUSTOM_ID_CHARS = 512
NUL = "\0"
"""PostgreSQL keeps no text with it."""


@dataclass(frozen=True)
class Valid:
    line_no: int
    custom_id: str
    served: Served
    body: bytes
    tokens: int
    """Prompt and expected output."""
    affinity: str
    """Sorts it next to lines that begin alike."""


@dataclass(frozen=True)
class Faulty:
    line_no: int
    custom_id: str | None
    """None when the line does not even say that much."""
    model: str
    failure: Failure


@dataclass(frozen=True)
class Rules:
    """What the lines of one batch are held against."""

    catalog: Catalog
    project_id: str
    endpoint: str
    depth: int
    max_line_bytes: int


def read_line(line: Line, rules: Rules) -> Valid | Faulty:
    """`line` as a request, or what is wrong with it."""
    document: dict[str, Any] = {}
    try:
        document = _document(line, rules)
        request = BatchLine.model_validate(document)
        if request.url != rules.endpoint:
            raise BadRequest(
                f"Invalid value for 'url': this batch is for {rules.endpoint} "
                f"(got {request.url[:80]!r}).",
                code="url_mismatch",
                param="url",
            )
        wanted = check(request.body, rules.endpoint)
        served = find(rules.catalog, rules.project_id, wanted, BATCH_MODES)
    except ValidationError as error:
        detail = error_from_validation(error.errors())
        refused = BadRequest(detail.message, code=detail.code, param=detail.param)
        return _faulty(line, document, refused)
    except (BadRequest, NotFound) as refused:
        return _faulty(line, document, refused)
    body = to_json(request.body)
    tokens = expected_work(len(body), wanted.most_tokens)
    alike = affinity(rules.project_id, request.body)
    return Valid(line.number, request.custom_id, served, body, tokens, alike)


def custom_id_of(document: dict[str, Any]) -> str | None:
    """The id that a line gives itself, when it gives one that can be used."""
    given = document.get("custom_id")
    if isinstance(given, str) and 0 < len(given) <= MAX_CUSTOM_ID_CHARS and NUL not in given:
        return given
    return None


def claimed_ids(lines: Iterable[Line], rules: Rules) -> list[tuple[int, str]]:
    """The lines that give themselves an id, and which; others are left out."""
    found: list[tuple[int, str]] = []
    for line in lines:
        try:
            document = _document(line, rules)
        except BadRequest:
            continue
        if custom_id := custom_id_of(document):
            found.append((line.number, custom_id))
    return found


@dataclass
class Survey:
    """What is known of a whole file before any of its lines becomes a row."""

    max_lines: int
    lines: int = 0
    first_line_of: dict[str, int] = field(default_factory=dict)
    errors: list[BatchError] = field(default_factory=list)

    def add(self, number_of_lines: int, ids: Iterable[tuple[int, str]]) -> None:
        """Count a group of lines, and the ids in it."""
        self.lines += number_of_lines
        if self.lines > self.max_lines:
            self.errors = [_too_many(self.max_lines)]
            return
        for number, custom_id in ids:
            first = self.first_line_of.setdefault(custom_id, number)
            if first != number:
                self.errors.append(_duplicate(custom_id, first, number))

    @property
    def is_over(self) -> bool:
        """Whether reading on would change nothing."""
        return self.lines > self.max_lines or len(self.errors) >= MAX_ERRORS

    def finish(self) -> list[BatchError]:
        """Why the file cannot be run, empty when it can."""
        return self.errors[:MAX_ERRORS] if self.lines else [_EMPTY]


MAX_ERRORS = 20
"""Errors of a file that are told of."""

_EMPTY = BatchError(code="empty_file", message="the input file has no line that is not blank")


def _duplicate(custom_id: str, first: int, number: int) -> BatchError:
    return BatchError(
        code="duplicate_custom_id",
        message=f"lines {first} and {number} have the same custom_id {custom_id[:80]!r}",
        param="custom_id",
        line=number,
    )


def _too_many(max_lines: int) -> BatchError:
    return BatchError(
        code="too_many_tasks",
        message=f"the input file has more than {max_lines} lines; split it",
    )


def _document(line: Line, rules: Rules) -> dict[str, Any]:
    if line.fault is not None:
        raise BadRequest(line.fault, code="invalid_row")
    if line.text is None:
        raise BadRequest(
            f"the line is longer than {rules.max_line_bytes} bytes", code="line_too_long"
        )
    try:
        # The line wraps the request in one more object.
        return parse(line.text, rules.depth + 1)
    except BadRequest as refused:
        raise BadRequest(refused.message, code="invalid_json_line") from None


def _faulty(line: Line, document: dict[str, Any], refused: Refused) -> Faulty:
    body = document.get("body")
    model = body.get("model") if isinstance(body, dict) else None
    return Faulty(
        line_no=line.number,
        custom_id=custom_id_of(document),
        model=model[:256].replace(NUL, "") if isinstance(model, str) else "",
        failure=Failure(
            status_code=refused.status,
            message=f"line {line.number}: {refused.message}",
            type=refused.kind,
            param=refused.param,
            code=refused.code,
        ),
    )
