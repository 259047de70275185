"""Read a declared model: check that it may be served, pin it by digest, gather its facts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tidegate.protocol.resources import ModelFacts
from tidegate.spec import ModelSpec, SourceKind, SpecIssue, Task, check_files, parse_source
from tidegate.spec.source import model_digest
from tidegate_controlplane.errors import Invalid
from tidegate_controlplane.models.artifact import artifact_facts, is_artifact
from tidegate_controlplane.models.facts import gguf_facts, read_json, safetensors_facts
from tidegate_controlplane.models.local import LocalFiles
from tidegate_controlplane.models.source import ModelFiles, SourceError

CONFIGS = ("config.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Inspected:
    """A model as it was found: its digest, its facts, and the commit for sources that have one."""

    facts: ModelFacts
    revision: str | None


KnownFacts = Callable[[str], Awaitable[ModelFacts | None]]
"""The facts of a digest that was read before."""


async def inspect(model: ModelSpec, known: KnownFacts, field: str = "model.source") -> Inspected:
    """Raises Invalid, naming the `field` of its source and the remedy, when it cannot be served.

    Files are listed and fingerprinted each time, but headers are read only for a digest that is not
    `known`: a large vocabulary takes seconds to parse.
    """
    try:
        found = await asyncio.to_thread(_find, model)
        facts = await known(found.digest)
        if facts is None:
            facts = await asyncio.to_thread(_read_facts, found)
        _check_task(model, facts)
        return Inspected(facts, found.files.revision)
    except SourceError as error:
        issue = SpecIssue(field, model.source, str(error))
        raise Invalid(f"{field}: {error}", issues=[issue], param=field) from error


def open_source(model: ModelSpec) -> ModelFiles:
    """The files of a source; raises SourceError when there are none."""
    source = parse_source(model.source, model.revision)
    if source.kind is SourceKind.PATH:
        return LocalFiles(source.location)
    # The clients below take half a second each to import, and most sources are paths.
    if source.kind is SourceKind.S3:
        from tidegate_controlplane.models.s3 import S3Files

        return S3Files(source.location, source.is_gguf)
    from tidegate_controlplane.models.hub import HubFiles

    return HubFiles(source.location, source.revision)


def digest_of(files: ModelFiles, listing: Mapping[str, int]) -> str:
    """One digest over the names, sizes and fingerprints of every file that matters."""
    return model_digest((name, size, files.fingerprint(name)) for name, size in listing.items())


@dataclass(frozen=True)
class _Found:
    files: ModelFiles
    listing: Mapping[str, int]
    digest: str


def _find(model: ModelSpec) -> _Found:
    files = open_source(model)
    listing = files.listing()
    configs = {name: read_json(files, name) for name in CONFIGS if name in listing}
    if fault := check_files(listing, configs):
        raise SourceError(f"{model.source!r} cannot be served: {fault}")
    return _Found(files, listing, digest_of(files, listing))


def _read_facts(found: _Found) -> ModelFacts:
    if is_artifact(found.files, found.listing):
        return artifact_facts(found.files, found.listing, found.digest)
    ggufs = [name for name in found.listing if name.lower().endswith(".gguf")]
    if ggufs:
        return gguf_facts(found.files, ggufs[0], found.listing[ggufs[0]], found.digest)
    return safetensors_facts(found.files, found.listing, found.digest)


def _check_task(model: ModelSpec, facts: ModelFacts) -> None:
    if facts.format == "gguf":
        if model.task.encodes:
            raise SourceError(f"models of task '{model.task}' are read from safetensors, not GGUF")
        return
    scores = facts.architecture.endswith("ForSequenceClassification")
    if scores is not (model.task is Task.RERANK):
        raise SourceError(
            f"its architecture {facts.architecture!r} "
            + ("scores pairs of texts; " if scores else "has no head that scores a pair; ")
            + f"set model.task to '{Task.RERANK if scores else Task.EMBED}'"
        )
    generates = facts.architecture.endswith(("ForCausalLM", "LMHeadModel"))
    if model.task is Task.GENERATE and not generates:
        raise SourceError(
            f"its architecture {facts.architecture!r} does not generate text; "
            "for an embedding model set model.task to 'embed'"
        )
