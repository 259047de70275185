"""How a model is run: its precision, its cache, and what is done to be faster or to fit."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ByteSize, Field, field_validator, model_validator

from tidegate.spec.declaration import Declaration
from tidegate.spec.names import DeploymentName
from tidegate.spec.source import parse_source


class Precision(StrEnum):
    """The number format of the weights while serving."""

    AUTO = "auto"
    """The plan chooses: int4 for a GGUF file of 4 bits, else int8; bf16 for embeddings."""
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"


class SpeculationSpec(Declaration):
    method: Literal["ngram", "draft", "early_exit", "medusa", "hydra"]
    """`ngram` looks up the prompt and needs no extra weights; `draft` runs a smaller model;
    `early_exit` guesses by the model's own first layers; `medusa` and `hydra` by heads on its last
    one, the latter knowing what the guess before was."""
    draft_model: str | None = None
    """The source of the draft model, which has the tokens of the model; required by, and only for,
    `draft`."""
    exit_layer: Annotated[int, Field(ge=1)] | None = None
    """After how many layers `early_exit` guesses; that of the heads when absent."""
    heads: str | None = None
    """The source of what `tidegate distill` made: a directory, `s3://…` or `hf://…`. Required by
    `medusa` and `hydra`, and what makes the guesses of `early_exit` good."""
    max_tokens: Annotated[int, Field(ge=1, le=15)] = 15
    """Proposed tokens per step, at most; how many pay is found out while serving."""

    @field_validator("draft_model", "heads")
    @classmethod
    def _is_a_source(cls, given: str | None) -> str | None:
        if given is not None:
            try:
                parse_source(given)
            except ValueError as error:
                raise ValueError(str(error).removeprefix("source: ")) from error
        return given

    @model_validator(mode="after")
    def _has_what_its_method_needs(self) -> SpeculationSpec:
        for field, methods in _SPECULATES_WITH.items():
            if getattr(self, field) is not None and self.method not in methods:
                name, known = field.replace("_", " "), " or ".join(map(repr, methods))
                raise ValueError(
                    f"{field}: method {self.method!r} uses no {name}; remove it, or set method to "
                    f"{known}"
                )
        if self.method == "draft" and self.draft_model is None:
            raise ValueError("draft_model: method 'draft' needs the source of a draft model")
        if self.method in ("medusa", "hydra") and self.heads is None:
            raise ValueError(
                f"heads: method {self.method!r} needs heads; make some with tidegate distill"
            )
        if self.method == "early_exit" and self.exit_layer is None and self.heads is None:
            raise ValueError(
                "exit_layer: method 'early_exit' needs the layer to guess after, or heads that "
                "were made for one"
            )
        return self


_SPECULATES_WITH = {
    "draft_model": ("draft",),
    "exit_layer": ("early_exit",),
    "heads": ("early_exit", "medusa", "hydra"),
}


class KvSpillSpec(Declaration):
    """Where prefixes go that the KV cache has no room for, so that nobody computes them again."""

    memory: Annotated[ByteSize, Field(ge=1024 * 1024)] | None = None
    """Of one replica, beside its KV cache; gone when it ends."""
    disk: Annotated[ByteSize, Field(ge=1024 * 1024)] | None = None
    """Of the machine, for all replicas of the model there; outlives them."""

    @model_validator(mode="after")
    def _has_a_place(self) -> KvSpillSpec:
        if self.memory is None and self.disk is None:
            raise ValueError("memory: set it, disk or both, as bytes or text such as `1GiB`")
        return self


class OffloadSpec(Declaration):
    """Serve a model whose weights do not fit the device: some layers are brought at each step, to
    a GPU from the machine's memory, to processors from the disk."""

    memory: Annotated[ByteSize, Field(ge=1024 * 1024)] | None = None
    """What weights may take of the device, as bytes or text such as `8GiB`; what else is not needed
    there when absent."""


class RuntimeSpec(Declaration):
    precision: Precision = Precision.AUTO
    context_tokens: Annotated[int, Field(ge=16)] | None = None
    """Prompt and output together; the model's own context when absent."""
    kv_cache: Annotated[ByteSize, Field(ge=1024 * 1024)] | None = None
    """Memory for one replica's KV cache, as bytes or text such as `2GiB`; planned when absent."""
    kv_spill: KvSpillSpec | None = None
    """Keeps prefixes that leave the KV cache; they are forgotten when absent."""
    max_sequences: Annotated[int, Field(ge=1, le=1024)] = 16
    """Sequences that one replica decodes in one batch."""
    speculation: SpeculationSpec | None = None
    tensor_parallel: Annotated[int, Field(ge=1, le=16)] | None = None
    """Devices that one replica's model is divided over: processes on processors, or all of its
    GPUs. `hardware.gpu.count` when absent, 1 without GPUs."""
    offload: OffloadSpec | None = None
    """`{}` streams as few layers as it must; all stay on the device when absent."""
    tool_parser: Literal["hermes", "llama3", "mistral"] | None = None
    """How the model writes the calls of tools; read from its chat template when absent."""
    adapters: dict[DeploymentName, str] = Field(default_factory=dict)
    """LoRA adapters, served as `deployment:name`: name → directory, `s3://…` or `hf://…`. They come
    and go while replicas serve."""
    max_adapters: Annotated[int, Field(ge=1, le=256)] | None = None
    """Of these in one replica's memory at once; the longest unused makes room. 8 when absent."""

    @field_validator("adapters")
    @classmethod
    def _adapters_have_sources(cls, given: dict[str, str]) -> dict[str, str]:
        for name, source in given.items():
            try:
                parse_source(source)
            except ValueError as error:
                raise ValueError(f"{name}: {str(error).removeprefix('source: ')}") from None
        return given
