"""What a body asks for: which endpoint, which model. Pure: bytes in, values or a refusal out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from tidegate.protocol.openai import ENDPOINT_REQUESTS
from tidegate.spec import Mode
from tidegate_controlplane.domain.nesting import is_within
from tidegate_controlplane.errors import BadRequest
from tidegate_controlplane.gateway import admission
from tidegate_controlplane.gateway.admission import check_task, most_tokens, validated
from tidegate_controlplane.gateway.catalog import Catalog, Served

ENDPOINT_OF_FIELD = {
    "messages": "/v1/chat/completions",
    "prompt": "/v1/completions",
    "input": "/v1/embeddings",
    "query": "/v1/rerank",
    "text_1": "/v1/score",
}
"""Which field a body of each endpoint has, and no other has."""


@dataclass(frozen=True)
class Wanted:
    """A valid request: whom it names, and the endpoint that answers it."""

    endpoint: str
    model: str
    most_tokens: int | None = None
    """Of its answers, as far as the caller bounds them."""


def parse(body: bytes, depth: int) -> dict[str, Any]:
    """The JSON object that `body` is; BadRequest when it is none, or is nested too deep."""
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"not JSON: {error}", code="invalid_json") from None
    if not isinstance(document, dict):
        raise BadRequest("not a JSON object", code="invalid_json")
    if not is_within(document, depth):
        raise BadRequest(f"nested deeper than {depth} levels", code="invalid_json")
    return document


def infer_endpoint(document: Mapping[str, Any]) -> str:
    """The endpoint that the body's fields belong to; BadRequest when that is not exactly one."""
    found = [field for field in ENDPOINT_OF_FIELD if field in document]
    if len(found) == 1:
        return ENDPOINT_OF_FIELD[found[0]]
    fields = (
        "'messages' (chat), 'prompt' (completions), 'input' (embeddings), 'query' (rerank) or "
        "'text_1' (score)"
    )
    if not found:
        raise BadRequest(f"no endpoint fits this body: give {fields}", code="missing_parameter")
    named = " and ".join(f"'{field}'" for field in found)
    raise BadRequest(
        f"{named} belong to different endpoints: give only one of {fields}", param=found[1]
    )


def check(document: dict[str, Any], endpoint: str) -> Wanted:
    """What a body of `endpoint` wants; BadRequest naming the field that is wrong.

    Streaming is refused: whoever asks for durable work is not there when it is done.
    """
    request = validated(ENDPOINT_REQUESTS[endpoint], document)
    if getattr(request, "stream", None):
        raise BadRequest(
            "Unsupported value: 'stream' cannot be true here; the answer is fetched when it is "
            "finished",
            code="unsupported_value",
            param="stream",
        )
    return Wanted(endpoint, request.model, most_tokens(request))


def find(catalog: Catalog, project_id: str, wanted: Wanted, modes: frozenset[Mode]) -> Served:
    """The living deployment that will do it.

    Raises NotFound (`model_not_found`), or BadRequest when its mode is not one of `modes`
    (`wrong_mode`) or its task does not fit the endpoint (`wrong_task`).
    """
    served = admission.find(catalog, project_id, wanted.model)
    if served.mode not in modes:
        raise BadRequest(
            f"the model {served.name!r} is served as '{served.mode}', which does not take this "
            f"kind of request; one that is served as {_either(modes)} does",
            code="wrong_mode",
            param="model",
        )
    check_task(served, wanted.endpoint)
    return served


INVOCATION_MODES = frozenset({Mode.REALTIME, Mode.SERVERLESS, Mode.ASYNC})
BATCH_MODES = frozenset(Mode)


def _either(modes: frozenset[Mode]) -> str:
    return " or ".join(f"'{mode}'" for mode in Mode if mode in modes)
