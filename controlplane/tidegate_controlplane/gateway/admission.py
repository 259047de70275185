"""What a data-plane request asks for, checked before anything is woken for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tidegate.protocol.openai import (
    ChatCompletionRequest,
    CompletionRequest,
    SamplingFields,
    error_from_validation,
)
from tidegate.protocol.tokenize import (
    DETOKENIZE,
    ONLINE_REQUESTS,
    TOKENIZE,
    DetokenizeRequest,
    OnlineRequest,
    TokenizeRequest,
)
from tidegate.spec import Mode, Task
from tidegate_controlplane.domain.prefix import prefix_blocks
from tidegate_controlplane.domain.routing import BYTES_PER_TOKEN
from tidegate_controlplane.errors import BadRequest, NotFound
from tidegate_controlplane.gateway.catalog import ADAPTER_MARK, Catalog, Served
from tidegate_controlplane.gateway.replica import Ask
from tidegate_controlplane.web.body import JsonBody

SHOWN_MODELS = 5

Shape = TypeVar("Shape", bound=BaseModel)

_DOORS = {
    Mode.ASYNC: "it is served as 'async': send the body to POST /v1/invocations",
    Mode.BATCH: "it is served as 'batch': upload a file of requests and POST /v1/batches",
}
_TASKS = {
    "/v1/chat/completions": {Task.GENERATE},
    "/v1/completions": {Task.GENERATE},
    "/v1/embeddings": {Task.EMBED},
    "/v1/rerank": {Task.EMBED, Task.RERANK},
    "/v1/score": {Task.EMBED, Task.RERANK},
    TOKENIZE: set(Task),
    DETOKENIZE: set(Task),
}
"""Whose models answer at each path."""
_TASK_DOORS = {
    Task.GENERATE: "generates text: use /v1/chat/completions or /v1/completions",
    Task.EMBED: "makes embeddings: use /v1/embeddings, /v1/rerank or /v1/score",
    Task.RERANK: "scores pairs of texts: use /v1/rerank or /v1/score",
}


@dataclass(frozen=True)
class Admitted:
    """A request that a replica may be asked."""

    served: Served
    path: str
    body: bytes
    """What is forwarded: the caller's own bytes, unless usage had to be asked for."""
    is_stream: bool
    wants_usage: bool
    """Whether the caller asked for the usage of a stream."""
    ask: Ask
    """What decides about its place."""


def admit(catalog: Catalog, project_id: str, path: str, body: JsonBody) -> Admitted:
    """The request of `path` in `body`. Raises BadRequest and NotFound."""
    asked = validated(ONLINE_REQUESTS[path], body.document)
    served = find(catalog, project_id, asked.model)
    check_mode(served)
    check_task(served, path)
    is_stream = isinstance(asked, SamplingFields) and bool(asked.stream)
    wants_usage = isinstance(asked, SamplingFields) and bool(
        asked.stream_options and asked.stream_options.include_usage
    )
    return Admitted(
        served=served,
        path=path,
        body=_asking_usage(body.document) if is_stream and not wants_usage else body.raw,
        is_stream=is_stream,
        wants_usage=wants_usage,
        ask=Ask(
            project_id=project_id,
            prompt_tokens=_read_tokens(asked, body.raw),
            most_tokens=most_tokens(asked),
            prefix=prefix_blocks(project_id, _prompt_bytes(asked)),
        ),
    )


def validated(shape: type[Shape], document: dict[str, Any]) -> Shape:
    """The request in the shape that its endpoint takes. Raises BadRequest naming the field."""
    try:
        return shape.model_validate(document)
    except ValidationError as error:
        detail = error_from_validation(error.errors(include_url=False))
        raise BadRequest(detail.message, code=detail.code, param=detail.param) from None


def find(catalog: Catalog, project_id: str, model: str) -> Served:
    """The deployment that serves `model`: its name, or `name:adapter`.

    Raises NotFound naming some that exist.
    """
    base = catalog.get(project_id, model.partition(ADAPTER_MARK)[0])
    if base and (served := base.model(model)):
        return served
    if base:
        others = ", ".join([base.name, *map(base.model_of, base.adapters)][:SHOWN_MODELS])
        raise NotFound(
            f"the model {model!r} does not exist; {base.name!r} is served as: {others}; add an "
            "adapter with `tidegate adapters add`",
            code="model_not_found",
            param="model",
        )
    names = [served.name for served in catalog.of_project(project_id)]
    known = ", ".join(names[:SHOWN_MODELS]) + (", …" if len(names) > SHOWN_MODELS else "")
    hint = f"deployments here: {known}" if names else "nothing is deployed here yet"
    raise NotFound(
        f"the model {model!r} does not exist; {hint}", code="model_not_found", param="model"
    )


def check_mode(served: Served) -> None:
    """Raise BadRequest when the deployment does not answer while the caller waits."""
    if served.mode in _DOORS:
        raise BadRequest(
            f"the model {served.name!r} does not answer at this door: {_DOORS[served.mode]}",
            code="wrong_mode",
            param="model",
        )


def check_task(served: Served, path: str) -> None:
    """Raise BadRequest when the deployment's model does other work than `path` asks for."""
    if served.task not in _TASKS[path]:
        raise BadRequest(
            f"the model {served.name!r} {_TASK_DOORS[served.task]}",
            code="wrong_task",
            param="model",
        )


def most_tokens(asked: OnlineRequest) -> int | None:
    """As many as its answers may have in all; None when the caller sets no bound."""
    match asked:
        case ChatCompletionRequest():
            limit, sequences = asked.output_limit, asked.n or 1
        case CompletionRequest():
            limit, sequences = asked.max_tokens, len(asked.prompts) * (asked.n or 1)
        case _:
            return 0
    return None if limit is None else limit * sequences


def _read_tokens(asked: OnlineRequest, raw: bytes) -> int:
    """As many as the model will about have to read: none where only its tokenizer is asked."""
    is_tokens = isinstance(asked, TokenizeRequest | DetokenizeRequest)
    return 0 if is_tokens else len(raw) // BYTES_PER_TOKEN


def _prompt_bytes(asked: OnlineRequest) -> bytes:
    """What a replica would compute first, in a form in which equal beginnings are equal."""
    match asked:
        case ChatCompletionRequest():
            return "\0".join(f"{each.role}\0{each.text}" for each in asked.messages).encode()
        case CompletionRequest(prompt=str(text)):
            return text.encode()
        case _:
            return b""  # of several prompts each has its own beginning


def _asking_usage(document: dict[str, Any]) -> bytes:
    options = {**(document.get("stream_options") or {}), "include_usage": True}
    return json.dumps({**document, "stream_options": options}).encode("ascii")
