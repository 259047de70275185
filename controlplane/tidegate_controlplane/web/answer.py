"""A resource as an answer."""

from __future__ import annotations

from collections.abc import Mapping

from litestar import Response
from pydantic import BaseModel


def answer(
    view: BaseModel, status_code: int = 200, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """The JSON of `view`."""
    return Response(
        view.model_dump_json().encode(),
        status_code=status_code,
        media_type="application/json",
        headers=dict(headers or {}),
    )
