"""From an error answer to a typed error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidegate import errors
from tidegate.flow.failures import failure, from_envelope, retry_after_s
from tidegate.flow.steps import Reply


def _reply(status: int, body: Any, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, named, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequest),
        (401, errors.AuthenticationFailed),
        (403, errors.PermissionDenied),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (412, errors.PreconditionFailed),
        (413, errors.TooLarge),
        (422, errors.Unprocessable),
        (429, errors.RateLimited),
        (500, errors.ServerError),
        (502, errors.ServerError),
        (503, errors.Unavailable),
        (410, errors.APIError),
    ],
)
def test_each_status_has_its_own_error_class(status: int, kind: type[errors.APIError]) -> None:
    body = {"error": {"message": "no", "type": "t", "param": "p", "code": "c"}}
    error = failure(_reply(status, body, x_request_id="req_1", retry_after="7"))
    assert type(error) is kind
    assert (error.status, error.code, error.param, str(error)) == (status, "c", "p", "no")
    assert (error.request_id, error.retry_after_s) == ("req_1", 7.0)


def test_a_problem_is_understood_with_all_its_issues() -> None:
    body = {
        "type": "urn:tidegate:problem:invalid",
        "title": "Invalid",
        "status": 422,
        "detail": "mode: wrong",
        "code": "invalid",
        "request_id": "req_2",
        "issues": [{"field": "mode", "value": "x", "message": "wrong"}],
    }
    error = failure(_reply(422, body))
    assert type(error) is errors.InvalidDeclaration
    assert (str(error), error.code, error.request_id) == ("mode: wrong", "invalid", "req_2")
    assert [(i.field, i.value, i.message) for i in error.issues] == [("mode", "x", "wrong")]


def test_a_refused_repeat_on_the_data_plane_is_not_called_an_invalid_declaration() -> None:
    body = {"error": {"message": "the key was used with another body", "type": "t"}}
    assert type(failure(_reply(422, body))) is errors.Unprocessable


@pytest.mark.parametrize("content", [b"", b"<html>Bad gateway</html>", b"[1]", b"\xff\xfe"])
def test_an_answer_in_no_known_shape_still_gives_a_typed_error(content: bytes) -> None:
    error = failure(Reply(502, {}, content))
    assert type(error) is errors.ServerError
    assert "HTTP 502" in str(error)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rate_limit_error", errors.RateLimited),
        ("invalid_request_error", errors.BadRequest),
        ("server_error", errors.ServerError),
    ],
)
def test_an_error_event_gets_its_class_from_its_type(
    kind: str, expected: type[errors.APIError]
) -> None:
    assert type(from_envelope({"type": kind, "message": "m"})) is expected


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 02 Jan 2026 03:04:15 GMT"}, None),
        (
            {
                "retry-after": "Fri, 02 Jan 2026 03:04:15 GMT",
                "date": "Fri, 02 Jan 2026 03:04:05 GMT",
            },
            10.0,
        ),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date_by_the_servers_own_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after_s(headers) == seconds


def test_every_error_of_the_package_is_a_tidegate_error_and_drawn_in_the_tree() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.TidegateError)
        assert name in (errors.__doc__ or "")
