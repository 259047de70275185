"""The facts of an artifact: a model that was built, or made smaller, before it is deployed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.protocol.resources import ModelFacts
from tidegate_controlplane.models.facts import (
    MALFORMED,
    checked,
    config_facts,
    read_json,
    safetensors_header,
)
from tidegate_controlplane.models.source import ModelFiles, SourceError
from tidegate_controlplane.models.vocabulary import digest_of_tokenizer

MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
_PARTS = (".codes", ".scales", ".minimums")


def is_artifact(files: ModelFiles, listing: Mapping[str, int]) -> bool:
    """Whether the files claim to be one."""
    return MANIFEST in listing and "packing" in read_json(files, MANIFEST)


def artifact_facts(files: ModelFiles, listing: Mapping[str, int], digest: str) -> ModelFacts:
    """Its precision is fixed. Raises SourceError when its manifest does not tell of it."""
    if WEIGHTS not in listing:
        raise SourceError(f"it has a {MANIFEST} but no {WEIGHTS}; build it again")
    config, manifest = read_json(files, "config.json"), read_json(files, MANIFEST)
    try:
        header = safetensors_header(files, WEIGHTS, listing[WEIGHTS])
        shapes = _shapes(manifest, header.shapes)
        facts = config_facts(config, digest, shapes, int(manifest["weights_bytes"]))
        fixed = {
            "precision": str(manifest["precision"]),
            "tied": bool(manifest["tied"]),
            "tokens_digest": digest_of_tokenizer(files, listing),
        }
        return checked(facts.model_copy(update=fixed))
    except MALFORMED as error:
        raise SourceError(
            f"its {MANIFEST} does not describe an artifact: {error!r}; build it again"
        ) from error


def _shapes(manifest: Mapping[str, Any], stored: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """The weights' own shapes, packed or not."""
    linears = manifest["linears"]
    packed = {f"{name}.weight": [entry["out"], entry["in"]] for name, entry in linears.items()}
    dense = {name: shape for name, shape in stored.items() if not name.endswith(_PARTS)}
    return {**packed, **dense}
