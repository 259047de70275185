"""A batch's input file, from what a caller has: a JSONL file, or prompts and bodies."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, BinaryIO

from tidegate.errors import ConfigurationError
from tidegate.routes.file_input import open_or_explain
from tidegate.routes.generate import CHAT, COMPLETIONS, EMBEDDINGS, RERANK, SCORE, conversation

BatchItem = str | Mapping[str, Any]
"""A prompt, the body of a request, or a whole line (`custom_id`, `method`, `url`, `body`)."""
BatchSource = str | PathLike[str] | Iterable[BatchItem]
"""A path to a JSONL file, or the items themselves."""

MEMORY_BYTES = 1024 * 1024
_PAIRED = {
    RERANK: '{"query": "…", "documents": ["…"]}',
    SCORE: '{"text_1": "…", "text_2": "…"}',
}


@contextmanager
def opened(source: BatchSource, endpoint: str, model: str) -> Iterator[tuple[BinaryIO, str]]:
    """The input as one seekable file, and its name; a line that names no model names `model`.

    Raises ConfigurationError when the path is not a readable file or there is no item at all.
    """
    if isinstance(source, str | PathLike):
        name = Path(fspath(source)).name
        lines = _file_lines(Path(fspath(source)), model)
    else:
        name = "requests.jsonl"
        lines = (_item_line(i, item, endpoint, model) for i, item in enumerate(source, start=1))
    with tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES) as file:
        for line in lines:
            file.write(line)
        if file.tell() == 0:
            raise ConfigurationError(f"a batch needs at least one request; {name} has none")
        yield file, name  # type: ignore[misc]


def with_model(line: bytes, model: str) -> bytes:
    """The line with `model` in its body; one that cannot be read stays, for the server to judge."""
    try:
        data = json.loads(line)
    except ValueError:
        return line
    body = data.get("body") if isinstance(data, dict) else None
    if not isinstance(body, dict) or "model" in body:
        return line
    return _encoded({**data, "body": {"model": model, **body}})


def _file_lines(path: Path, model: str) -> Iterator[bytes]:
    with open_or_explain(path.expanduser()) as file:
        for line in file:
            if line.strip():
                yield with_model(line.rstrip(b"\r\n"), model) + b"\n"


def _item_line(number: int, item: BatchItem, endpoint: str, model: str) -> bytes:
    if isinstance(item, Mapping) and "custom_id" in item:
        return with_model(_encoded(dict(item)), model) + b"\n"
    body = dict(item) if isinstance(item, Mapping) else _prompt_body(item, endpoint)
    line = {
        "custom_id": f"request-{number}",
        "method": "POST",
        "url": endpoint,
        "body": {"model": model, **body},
    }
    return _encoded(line) + b"\n"


def _prompt_body(prompt: str, endpoint: str) -> dict[str, Any]:
    if endpoint == COMPLETIONS:
        return {"prompt": prompt}
    if endpoint == EMBEDDINGS:
        return {"input": prompt}
    if endpoint == CHAT:
        return {"messages": conversation(prompt)}
    if endpoint in _PAIRED:
        raise ConfigurationError(
            f"a text alone is no request of {endpoint}; give a body, such as {_PAIRED[endpoint]}"
        )
    known = ", ".join((CHAT, COMPLETIONS, EMBEDDINGS, *_PAIRED))
    raise ConfigurationError(f"{endpoint!r} is not an endpoint of batches; use one of {known}")


def _encoded(data: dict[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
