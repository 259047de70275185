"""Encryption at rest, for the operator."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.types import ControllerRouterHandler

from tidegate.protocol.resources import EncryptionPass, EncryptionView
from tidegate_controlplane.api.declaration import DECLARATION_BYTES
from tidegate_controlplane.web.answer import answer
from tidegate_controlplane.web.body import read_model
from tidegate_controlplane.web.openapi import describe
from tidegate_controlplane.work.rotation import Rotation


@get(
    "/api/v1/encryption",
    opt=describe("The keys, and what is sealed under each", answers={200: EncryptionView}),
)
async def get_encryption(rotation: NamedDependency[Rotation]) -> Response[bytes]:
    """As the present pass, or the last one since the start, has found it."""
    return answer(rotation.view())


@post(
    "/api/v1/encryption/passes",
    status_code=202,
    opt=describe(
        "Look at everything that is sealed, and put it under the newest key if asked to",
        body=EncryptionPass,
        answers={202: EncryptionView},
        refuses=(409,),
    ),
)
async def begin_pass(
    request: Request[Any, Any, Any], rotation: NamedDependency[Rotation]
) -> Response[bytes]:
    wanted = await read_model(request, EncryptionPass, DECLARATION_BYTES)
    return answer(rotation.start(rewrap=wanted.rewrap), 202)


HANDLERS: list[ControllerRouterHandler] = [get_encryption, begin_pass]
