"""What a text is held to: a JSON schema, one of some choices."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from tidegate.protocol.wire import WireModel

MAX_GUIDED_CHOICES = 1024


class JsonSchema(WireModel):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] = Field(
        alias="schema", description="JSON Schema, at most 64 KiB and 32 levels deep"
    )
    strict: bool | None = Field(
        default=None,
        description="false leaves out what cannot be kept, which is refused by name otherwise",
    )


class ResponseFormat(WireModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_goes_with_its_type(self) -> ResponseFormat:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise ValueError("json_schema: needed with type 'json_schema', and only there")
        return self


GuidedChoice = Annotated[str, StringConstraints(min_length=1)]
