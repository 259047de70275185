"""How one model takes conversations: its template, its tokens, and its way of calling tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.protocol.openai import (
    ChatCompletionRequest,
    FunctionDefinition,
    NamedToolChoice,
)
from tidegate_runtime.chat.messages import template_messages
from tidegate_runtime.chat.renderer import Renderer
from tidegate_runtime.errors import ModelRefused, RequestRefused
from tidegate_runtime.grammar.recursion import check_ends
from tidegate_runtime.grammar.schema import check_schema
from tidegate_runtime.grammar.source import GrammarSource
from tidegate_runtime.tools.grammar import CallGrammar, Signature
from tidegate_runtime.tools.prompt import as_plain_messages
from tidegate_runtime.tools.reading import CallReading
from tidegate_runtime.tools.syntax import SYNTAXES, CallSyntax, knows_tools, syntax_of

NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}
NO_ARGUMENTS: Mapping[str, Any] = {**NO_PARAMETERS, "additionalProperties": False}
"""The schema of a function that takes nothing."""


class ChatPrompts:
    """Turns chats into tokens; any thread may call.

    `tool_parser` is the declaration's word on how calls are written, by default the template's.
    """

    def __init__(
        self, tokenizer: Any, tool_parser: str | None = None, renderer: Renderer | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._tool_parser = tool_parser
        self._renderer = renderer or Renderer()

    def warm(self) -> None:
        """Prepare for the first chat, without waiting. Raises ModelRefused (WrongToolParser)."""
        try:
            template = self._template(with_tools=True)
        except RequestRefused:
            return  # each chat is told why
        if self._tool_parser not in (None, "hermes") and not knows_tools(template):
            raise ModelRefused(
                "WrongToolParser",
                f"runtime.tool_parser {self._tool_parser!r}: the model's chat template knows no "
                "tools, which are then told in the form of 'hermes'; use that, or leave it out",
            )
        self._renderer.warm(template)

    def tokens(
        self, request: ChatCompletionRequest, *, add_generation_prompt: bool = True
    ) -> list[int]:
        """The conversation in the model's own words, ready for its answer unless told otherwise.
        Raises RequestRefused when there is no template, or when it does not take these messages.
        """
        tools = _offered(request)
        template = self._template(with_tools=bool(tools))
        messages = template_messages(request.messages)
        if not knows_tools(template):
            messages = as_plain_messages(messages, tools)
        text = self._renderer.render(
            template,
            {
                **{name: str(value) for name, value in self._tokenizer.special_tokens_map.items()},
                "messages": messages,
                "tools": tools or None,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
            },
        )
        found = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return [int(token) for token in found]

    def calls(self, request: ChatCompletionRequest) -> CallReading | None:
        """How to find calls in the answer, None when it can have none. Raises RequestRefused for a
        template whose calls cannot be read.
        """
        tools = _offered(request)
        if not tools:
            return None
        syntax = SYNTAXES.get(self._tool_parser or "")
        if syntax is None and (syntax := syntax_of(self._template(with_tools=True))) is None:
            raise RequestRefused(
                "tools: how this model writes calls is not known from its chat template; set "
                f"runtime.tool_parser of the deployment to one of {', '.join(SYNTAXES)}.",
                param="tools",
                code="unknown_tool_syntax",
            )
        names = frozenset(tool["function"]["name"] for tool in tools)
        return CallReading(syntax, names, self._grammar(request, syntax))

    def _grammar(self, request: ChatCompletionRequest, syntax: CallSyntax) -> GrammarSource | None:
        """For an answer that must call, may not call twice, or must call rightly."""
        choice, tools = request.tool_choice, request.tools or []
        named = choice.function.name if isinstance(choice, NamedToolChoice) else None
        is_required = choice not in (None, "auto")
        is_single = request.parallel_tool_calls is False or named is not None
        if not (is_required or is_single or any(tool.function.strict for tool in tools)):
            return None
        grammar = CallGrammar(
            syntax,
            [
                _signature(tool.function, f"tools.{place}.function.parameters")
                for place, tool in enumerate(tools)
                if named in (None, tool.function.name)
            ],
            self._special_tokens(syntax),
            is_required=is_required,
            is_single=is_single,
        )
        return GrammarSource.lark(grammar.text(), "tools")

    def shown_tokens(self, syntax: CallSyntax) -> dict[int, str]:
        """The letters around calls that are single tokens, and would give no text otherwise."""
        found = {}
        for text in (syntax.opening, syntax.closing):
            token = self._tokenizer.get_added_vocab().get(text)
            if token is not None:
                found[int(token)] = text
        return found

    def _special_tokens(self, syntax: CallSyntax) -> dict[str, int]:
        added = self._tokenizer.added_tokens_decoder
        shown = self.shown_tokens(syntax)
        return {text: token for token, text in shown.items() if added[token].special}

    def _template(self, *, with_tools: bool) -> str:
        if not self._tokenizer.chat_template:
            raise RequestRefused(
                "This model has no chat template; send a plain prompt to /v1/completions instead.",
                param="messages",
                code="no_chat_template",
            )
        try:
            return str(self._tokenizer.get_chat_template(None, [] if with_tools else None))
        except ValueError as error:
            raise RequestRefused(
                f"This model's chat templates cannot be used: {error}",
                param="messages",
                code="no_chat_template",
            ) from error


def _offered(request: ChatCompletionRequest) -> list[dict[str, Any]]:
    """The tools that the answer may call, as templates take them."""
    if request.tool_choice == "none":
        return []
    return [{"type": "function", "function": _shown(tool.function)} for tool in request.tools or []]


def _signature(function: FunctionDefinition, param: str) -> Signature:
    """Raises RequestRefused for a schema that is none, or that a strict function cannot keep."""
    given = function.parameters
    schema = dict(NO_ARGUMENTS) if given is None else {**NO_PARAMETERS, **given}
    check_schema(schema, param, lenient=not function.strict)
    check_ends(schema, param)
    return Signature(function.name, schema, lenient=not function.strict)


def _shown(function: FunctionDefinition) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        shown["description"] = function.description
    return {**shown, "parameters": function.parameters or NO_PARAMETERS}
