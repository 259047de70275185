"""Checks a request's Signature Version 4 the way AWS does: by signing it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if TYPE_CHECKING:
    from aiohttp import web

KEY_ID, SECRET = "AKIDOUBLE", "a secret of the double"
REGION = "us-east-1"


def is_signed(request: web.Request, body: bytes, service: str = "sagemaker") -> bool:
    """Whether the secret of the double signed exactly what arrived."""
    said = request.headers.get("authorization", "")
    if f"Credential={KEY_ID}/" not in said:
        return False
    named = said.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    again = AWSRequest(
        request.method,
        str(request.url),
        data=body,
        headers={name: request.headers[name] for name in named},
    )
    again.context["timestamp"] = request.headers["x-amz-date"]
    auth = SigV4Auth(Credentials(KEY_ID, SECRET), service, REGION)
    canonical = auth.canonical_request(again)
    wanted = auth.signature(auth.string_to_sign(again, canonical), again)
    return said.endswith(f"Signature={wanted}")
