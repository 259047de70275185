"""What is taken from SageMaker's one free header, and what is not."""

from __future__ import annotations

import pytest

from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.attributes import read_attributes


def test_a_gateway_says_route_project_priority_and_id() -> None:
    told = read_attributes("path=/v1/chat/completions;project=p%3B1;priority=1;request_id=req_1")
    assert told.path == "/v1/chat/completions"
    assert dict(told.headers) == {
        "X-Tidegate-Project": "p;1",
        "X-Tidegate-Priority": "1",
        "X-Request-Id": "req_1",
    }


def test_without_the_header_the_body_decides() -> None:
    told = read_attributes("")
    assert (told.path, told.headers) == (None, ())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("path=/metrics", r"path: '/metrics' is no route; use /v1/chat/completions"),
        ("path=/v1/../drain", r"path: '/v1/../drain' is no route"),
        ("token=x", r"the key 'token' is not known; use path, project, priority, request_id"),
        ("project=a;project=b", r"the key 'project' is there twice"),
        ("priority=3", r"priority: '3' is no priority; use 0 \(sync\)"),
        ("project=a%0d%0aX-Evil:1", r"project: 'a%0d%0aX-Evil:1' is no text"),
        ("project=%E2%82%AC", r"project: '%E2%82%AC' is no text"),
        ("request_id=", r"request_id: '' is no text"),
        ("request_id=" + "a" * 1024, r"1035 characters; send at most 1024"),
    ],
)
def test_what_is_not_known_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(RequestRefused, match=rf"X-Amzn-SageMaker-Custom-Attributes: {named}"):
        read_attributes(text)
