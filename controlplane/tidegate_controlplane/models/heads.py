"""Read declared heads: pin them by digest, and gather what they say of the model they are for."""

from __future__ import annotations

import asyncio
import json

from pydantic import BaseModel, Field, ValidationError, field_validator

from tidegate.local.heads_files import FORMAT, MANIFEST, WEIGHTS, heads_digest
from tidegate.protocol.resources import PlannedHeads
from tidegate.spec import ModelSpec, SpecIssue
from tidegate_controlplane.domain.heads import FIELD, Heads
from tidegate_controlplane.errors import Invalid
from tidegate_controlplane.models.facts import CONFIG_BYTES
from tidegate_controlplane.models.inspect import open_source
from tidegate_controlplane.models.source import SourceError


class _File(BaseModel):
    bytes: int


class _Manifest(BaseModel):
    """Of `heads.json`, what a plan depends on; a replica reads all of it."""

    format: int
    method: str
    exit_layer: int | None = Field(ge=1)
    hidden: int = Field(ge=1)
    vocabulary: int = Field(ge=1)
    model: str
    file: _File

    @field_validator("format")
    @classmethod
    def _is_read(cls, given: int) -> int:
        if given != FORMAT:
            raise ValueError(f"it is {given}, and {FORMAT} is read")
        return given


async def inspect_heads(source: str) -> Heads:
    """Raises Invalid, naming the field of the source and the remedy, when they cannot be served."""
    try:
        return await asyncio.to_thread(read_heads, source)
    except SourceError as error:
        issue = SpecIssue(FIELD, source, str(error))
        raise Invalid(f"{FIELD}: {error}", issues=[issue], param=FIELD) from error


def read_heads(source: str) -> Heads:
    """What the heads of a source say of themselves. Raises SourceError. Blocks."""
    files = open_source(ModelSpec(source=source))
    listing = files.listing()
    for name in (MANIFEST, WEIGHTS):
        if name not in listing:
            raise SourceError(
                f"{source!r} holds no heads: there is no {name} in it; give what tidegate distill "
                "wrote"
            )
    content = files.read(MANIFEST, 0, CONFIG_BYTES)
    try:
        said = _Manifest.model_validate(json.loads(content))
    except (ValidationError, ValueError, RecursionError) as error:
        raise SourceError(
            f"the {MANIFEST} of {source!r} does not describe heads: {_reason(error)}; make them "
            "again with tidegate distill"
        ) from error
    if listing[WEIGHTS] != said.file.bytes:
        raise SourceError(
            f"the {WEIGHTS} of {source!r} has {listing[WEIGHTS]} bytes, and its {MANIFEST} tells "
            f"of {said.file.bytes}; copy both again"
        )
    planned = PlannedHeads(
        digest=heads_digest(content), revision=files.revision, weights_bytes=said.file.bytes
    )
    own = said.model_dump(include={"method", "exit_layer", "hidden", "vocabulary", "model"})
    return Heads(planned, **own)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
    return str(error)
