"""The files of heads: what guesses a model's next tokens from its hidden states.

    heads.json           what they were made for, and how good they were (`HeadsManifest`)
    heads.safetensors    norm         float32 [hidden]
                         tokens       int32 [shortlist], those that are ever guessed
                         <linear>.*   packed in 8 bits, with a bias or without (`linears_of`)

The last linear, `head`, knows the tokens of a shortlist only, the likeliest of the model (Zhao et
al. 2025, FR-Spec): others are never guessed, which costs a little acceptance and saves most of the
memory that is read for a guess. `guess` has what the linears compute.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from tidegate.local.heads_files import FORMAT, MANIFEST, WEIGHTS
from tidegate_runtime.artifact.manifest import FileEntry
from tidegate_runtime.artifact.open import describe_file
from tidegate_runtime.artifact.save import save_tensors
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.ops.quantized import GROUP, PANEL, pack, quantize

BITS = 8
Method = Literal["early_exit", "medusa", "hydra"]


class HeadsManifest(BaseModel):
    """`heads.json`. A later version of format 1 may add fields."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: int
    method: Method
    exit_layer: int | None = Field(description="after which the heads stand; null is the last")
    levels: int = Field(ge=1, le=15, description="how many tokens ahead they guess")
    hidden: int = Field(ge=32, multiple_of=32)
    vocabulary: int = Field(ge=1)
    shortlist: int = Field(ge=1, description="how many tokens they know")
    epsilon: float = Field(gt=0, description="of the norm")
    model: str = Field(description="the source that they were made for")
    model_digest: str
    precision: str = Field(description="of the model, as it was listened to")
    text: str = Field(description="the file that the model continued")
    trained_tokens: int = Field(description="places that were learnt from, each many times")
    acceptance: list[float] = Field(
        description="on held-out text: how often the first 1, 2, ... guesses were all right"
    )
    untrained_acceptance: list[float] = Field(
        description="the same of the model's own norm and head in the place of what was learnt"
    )
    file: FileEntry | None = Field(default=None, description="of heads.safetensors")


@dataclass(frozen=True)
class HeadWeights:
    """What heads have learnt, float32: `norm`, the linears and their biases by name; and their
    shortlist `tokens`.
    """

    norm: torch.Tensor
    tokens: torch.Tensor
    linears: Mapping[str, torch.Tensor]
    biases: Mapping[str, torch.Tensor]

    def packed(self) -> dict[str, torch.Tensor]:
        """As they are in the file."""
        tensors = {"norm": self.norm.float(), "tokens": self.tokens.int()}
        tensors |= {f"{name}.bias": bias.float() for name, bias in self.biases.items()}
        for name, weight in self.linears.items():
            for part, tensor in pack(quantize(weight, BITS)).items():
                tensors[f"{name}.{part}"] = tensor
        return tensors


def linears_of(
    method: Method, hidden: int, levels: int, shortlist: int
) -> dict[str, tuple[int, int, bool]]:
    """The linears of heads of a kind: `(out, in, has a bias)` by name."""
    head = {"head": (shortlist, hidden, False)}
    if method == "hydra":
        wide = 2 * hidden
        return {"join": (wide, wide, True), "mix": (hidden, wide, False), **head}
    return {"block": (levels * hidden, hidden, True), **head}


def write_heads(root: Path, manifest: HeadsManifest, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fill a directory; the manifest's `file` is told here."""
    save_tensors(tensors, root / WEIGHTS)
    whole = manifest.model_copy(update={"file": describe_file(root / WEIGHTS)})
    (root / MANIFEST).write_text(whole.model_dump_json(indent=2))


def read_heads(root: Path) -> tuple[HeadsManifest, Mapping[str, torch.Tensor]]:
    """The manifest and the tensors of a directory, checked against each other.

    Raises ModelRefused (DamagedHeads).
    """
    path = root / MANIFEST
    try:
        manifest = HeadsManifest.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, _reason(error)) from error
    if manifest.format != FORMAT:
        raise _damaged(path, f"its format is {manifest.format}, and {FORMAT} is read")
    path = root / WEIGHTS
    try:
        found = describe_file(path)
        if found != manifest.file:
            raise _damaged(
                path, f"it has {found.bytes} bytes, and they are not those it was made of"
            )
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, _reason(error)) from error
    _check_shapes(path, manifest, tensors)
    return manifest, tensors


def packed_linears(
    manifest: HeadsManifest, tensors: Mapping[str, torch.Tensor]
) -> dict[str, PackedLinear]:
    """The linears of heads, whose shapes are right."""
    return {
        name: PackedLinear(
            {part: tensors[f"{name}.{part}"] for part in ("codes", "scales")},
            tensors.get(f"{name}.bias"),
            out,
            inputs,
            BITS,
        )
        for name, (out, inputs, _) in _linears(manifest).items()
    }


def _linears(manifest: HeadsManifest) -> dict[str, tuple[int, int, bool]]:
    return linears_of(manifest.method, manifest.hidden, manifest.levels, manifest.shortlist)


def _check_shapes(path: Path, manifest: HeadsManifest, tensors: Mapping[str, torch.Tensor]) -> None:
    expected: dict[str, tuple[int, ...]] = {
        "norm": (manifest.hidden,),
        "tokens": (manifest.shortlist,),
    }
    for name, (out, inputs, has_bias) in _linears(manifest).items():
        panels = -(-out // PANEL)
        expected[f"{name}.codes"] = (panels, inputs // 4, PANEL, 4)
        expected[f"{name}.scales"] = (panels, inputs // GROUP, PANEL)
        if has_bias:
            expected[f"{name}.bias"] = (out,)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        name = min(set(found.items()) ^ set(expected.items()))[0]
        raise _damaged(
            path,
            f"{name} has the shape {found.get(name)}, and {expected.get(name)} was expected",
        )
    tokens = tensors["tokens"]
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < manifest.vocabulary:
        raise _damaged(path, f"it knows tokens beyond the vocabulary of {manifest.vocabulary}")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if isinstance(error, OSError):
        return f"it cannot be read ({error.strerror})"
    return f"it is not what it should be ({type(error).__name__}: {error})"


def _damaged(path: Path, what: str) -> ModelRefused:
    return ModelRefused(
        "DamagedHeads", f"the file {str(path)!r} is damaged: {what}; make the heads again"
    )
