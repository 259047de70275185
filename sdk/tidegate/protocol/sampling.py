"""How the next token of a generation is chosen, and when it ends."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from tidegate.protocol.structure import MAX_GUIDED_CHOICES, GuidedChoice
from tidegate.protocol.wire import ModelName, WireModel

MAX_CHOICES = 8
MAX_LOGPROBS = 20
MAX_STOP_STRINGS = 4
MAX_STOP_BYTES = 256
StopString = Annotated[str, StringConstraints(min_length=1)]


class StreamOptions(WireModel):
    include_usage: bool = False


class ContextCompression(WireModel):
    """Leave out of a prompt what matters least, until it has so many tokens."""

    target_tokens: int = Field(ge=1, description="of the prompt, its template included")
    method: Literal["relevance", "surprise", "tokens"] = Field(
        default="relevance",
        description="keep sentences that are close to the question; sentences, or words, that "
        "surprise the model, which has to read them once for that",
    )


class SamplingFields(WireModel):
    """How the next token is chosen; common to chat completions and completions."""

    model: ModelName
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    top_k: int | None = Field(default=None, ge=0, description="0 keeps every token")
    min_p: float | None = Field(default=None, ge=0.0, le=1.0)
    presence_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    repetition_penalty: float | None = Field(
        default=None, gt=0.0, le=2.0, description="divides what was seen; 1 is no penalty"
    )
    logit_bias: dict[str, Annotated[float, Field(ge=-100.0, le=100.0)]] | None = Field(
        default=None, max_length=1024, description="token id (as text) → bias in [-100, 100]"
    )
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: StopString | list[StopString] | None = None
    ignore_eos: bool | None = Field(default=None, description="do not stop at end of sequence")
    min_tokens: int | None = Field(
        default=None, ge=0, description="tokens before an end of sequence; stop strings still stop"
    )
    guided_json: dict[str, Any] | None = Field(
        default=None, description="JSON Schema, at most 64 KiB and 32 levels deep"
    )
    guided_regex: str | None = Field(
        default=None, min_length=1, description="matched by the whole text; Rust's regex syntax"
    )
    guided_choice: list[GuidedChoice] | None = Field(
        default=None, min_length=1, max_length=MAX_GUIDED_CHOICES
    )
    guided_grammar: str | None = Field(
        default=None, min_length=1, description="EBNF: GBNF (root ::= …) or Lark (start: …)"
    )
    context_compression: ContextCompression | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def guides(self) -> list[str]:
        """The fields that say what the text must look like."""
        names = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
        return [name for name in names if getattr(self, name) is not None]

    @property
    def stop_strings(self) -> list[str]:
        """The stop strings as a list, empty when there are none."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @model_validator(mode="after")
    def _stop_is_bounded(self) -> SamplingFields:
        if len(self.stop_strings) > MAX_STOP_STRINGS:
            raise ValueError(f"stop: at most {MAX_STOP_STRINGS} strings are honoured")
        if any(len(text.encode()) > MAX_STOP_BYTES for text in self.stop_strings):
            raise ValueError(f"stop: a stop string is at most {MAX_STOP_BYTES} bytes")
        return self

    @model_validator(mode="after")
    def _one_guide_at_most(self) -> SamplingFields:
        if len(self.guides) > 1:
            raise ValueError(f"{self.guides[1]}: not together with {self.guides[0]}; choose one")
        return self

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> SamplingFields:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only allowed when stream is true")
        return self


def check_limits(min_tokens: int | None, max_tokens: int | None) -> None:
    """Raise ValueError when fewer tokens are allowed than are wanted."""
    if min_tokens is not None and max_tokens is not None and min_tokens > max_tokens:
        raise ValueError(f"min_tokens: {min_tokens} is more than max_tokens {max_tokens}")
