"""From the fields of a request to the grammar that its answer must follow."""

from __future__ import annotations

from tidegate.protocol.openai import ChatCompletionRequest, SamplingFields
from tidegate_runtime.grammar.source import GrammarSource


def wanted_grammar(request: SamplingFields) -> GrammarSource:
    """The grammar of `response_format` or of a guided field, of which the request has one.

    Raises RequestRefused for one that cannot be kept.
    """
    if request.guided_json is not None:
        return GrammarSource.json_schema(request.guided_json, "guided_json")
    if request.guided_regex is not None:
        return GrammarSource.regex(request.guided_regex, "guided_regex")
    if request.guided_choice is not None:
        return GrammarSource.choice(request.guided_choice, "guided_choice")
    if request.guided_grammar is not None:
        return GrammarSource.ebnf(request.guided_grammar, "guided_grammar")
    format_ = request.response_format if isinstance(request, ChatCompletionRequest) else None
    if format_ is None or (wanted := format_.json_schema) is None:
        return GrammarSource.json_object("response_format")
    where = "response_format.json_schema.schema"
    return GrammarSource.json_schema(wanted.schema_, where, lenient=wanted.strict is False)
