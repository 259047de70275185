"""Functions that a model may ask its caller to run, and its calls of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator

from tidegate.protocol.wire import Answer, WireModel

MAX_TOOLS = 128
FunctionName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class PastFunctionCall(WireModel):
    name: FunctionName
    arguments: str = Field(description="a JSON object as text")
    parsed_arguments: Any = Field(default=None, description="the same once more; not read")


class PastToolCall(WireModel):
    """A call of an earlier turn, as an answer had it, or as a client put it together."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    type: Literal["function"]
    function: PastFunctionCall
    index: int | None = Field(default=None, description="of a streamed call; not read")


class FunctionDefinition(WireModel):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(
        default=None, description="a JSON schema of an object; no arguments when absent"
    )
    strict: bool | None = Field(
        default=None, description="the model can only write arguments that follow the schema"
    )

    @field_validator("parameters")
    @classmethod
    def _arguments_are_an_object(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        if given and given.get("type", "object") != "object":
            raise ValueError("type: the arguments of a function are an object; write 'object'")
        return given


class Tool(WireModel):
    """A function that the model may ask its caller to run."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(WireModel):
    name: FunctionName


class NamedToolChoice(WireModel):
    """This function, and no other answer."""

    type: Literal["function"]
    function: NamedFunction


class ToolFields(BaseModel):
    """The tools of a chat, and whether the model may, must or must not call them."""

    tools: list[Tool] | None = Field(default=None, min_length=1, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = Field(
        default=None, description="auto when there are tools"
    )
    parallel_tool_calls: bool | None = Field(
        default=None, description="several calls in one answer; true when absent"
    )

    @model_validator(mode="after")
    def _choice_is_among_the_tools(self) -> ToolFields:
        for field in ("tool_choice", "parallel_tool_calls"):
            if getattr(self, field) is not None and self.tools is None:
                raise ValueError(f"{field}: only allowed when tools are given")
        names = [tool.function.name for tool in self.tools or []]
        if len(set(names)) < len(names):
            raise ValueError("tools: two functions have the same name; rename one")
        if isinstance(self.tool_choice, NamedToolChoice):
            chosen = self.tool_choice.function.name
            if chosen not in names:
                raise ValueError(f"tool_choice: {chosen!r} is none of the tools; name one of them")
        return self


class FunctionCall(Answer):
    name: str
    arguments: str = Field(description="a JSON object as text")


class ToolCall(Answer):
    """A function that the model asks its caller to run."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class FunctionCallDelta(Answer):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(Answer):
    """A piece of the call `index`: its id, type and function's name first, then its arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCallDelta | None = None
