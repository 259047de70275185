from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from litestar import Request


@pytest.fixture
def request_of() -> Callable[..., Request[Any, Any, Any]]:
    """A request whose body comes in pieces; `asked` counts how many were taken."""

    def make(
        *pieces: bytes, headers: dict[str, str] | None = None, query: str = "", ends: bool = True
    ) -> Request[Any, Any, Any]:
        asked = [0]

        async def receive() -> Any:
            place = asked[0]
            asked[0] += 1
            if place >= len(pieces):
                return {"type": "http.disconnect"}
            more = place < len(pieces) - 1 or not ends
            return {"type": "http.request", "body": pieces[place], "more_body": more}

        scope: Any = {
            "type": "http",
            "method": "POST",
            "path": "/v1/x",
            "query_string": query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()],
            "state": {"asked": asked},
        }
        return Request(scope, receive=receive)

    return make
