"""Which requests begin alike: a text that sorts them next to each other.

A replica keeps the blocks of the prompts it had last, so lines with the same instructions are cheap
one after another, and dear when those of another prompt run in between. The affinity of a request
has a part for what its conversation begins with, and one for each longer beginning of the rest,
every part a hash of all that came before it too. Sorted as text, requests that share more stand
closer, like the words of a dictionary; no request need be compared with another.

The hash is salted by project, like the engine's own blocks: it tells a tenant nothing of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

CUTS_BYTES = (64, 256, 1024, 4096)
"""Beginnings of what follows the instructions; one that is shorter than a cut has no part for it.
The engine's blocks are 16 tokens, about the first of these."""
PART_BYTES = 5
"""Of each hash: a wrong neighbour costs a little speed, never an answer."""
INSTRUCTING = frozenset({"system", "developer"})


def affinity(project_id: str, body: Mapping[str, Any]) -> str:
    """Of a valid request's body; empty for embeddings, whose prompts share nothing of worth."""
    if "messages" in body:
        instructions, rest = _split(body["messages"])
    elif isinstance(body.get("prompt"), str):
        instructions, rest = b"", body["prompt"].encode("utf-8", "surrogatepass")
    else:
        return ""
    model = str(body.get("model", "")).encode()
    return "".join(_parts(project_id, model, instructions, rest))


def _parts(project_id: str, model: bytes, instructions: bytes, rest: bytes) -> Iterator[str]:
    """The hash of the instructions, then of each longer beginning of `rest` after them."""
    salt = blake2b(project_id.encode(), digest_size=16).digest()
    state = blake2b(key=salt, digest_size=PART_BYTES)
    for piece in (model, instructions):
        state.update(len(piece).to_bytes(8, "big"))
        state.update(piece)
    yield state.hexdigest()
    done = 0
    for cut in CUTS_BYTES:
        if len(rest) < cut:
            return
        state.update(rest[done:cut])
        done = cut
        yield state.hexdigest()


def _split(messages: list[dict[str, Any]]) -> tuple[bytes, bytes]:
    """What the conversation begins with of system messages, and the rest."""
    first = next(
        (at for at, message in enumerate(messages) if message.get("role") not in INSTRUCTING),
        len(messages),
    )
    return _spoken(messages[:first]), _spoken(messages[first:])


def _spoken(messages: list[dict[str, Any]]) -> bytes:
    said: list[str] = []
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        said += [str(message.get("role")), *(str(part.get("text")) for part in parts)]
    return "\0".join(said).encode("utf-8", "surrogatepass")
