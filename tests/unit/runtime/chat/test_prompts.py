"""What a model is told of messages and tools, whether its template knows of tools or not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tidegate.protocol.openai import ChatCompletionRequest, error_from_validation
from tidegate_runtime.chat.prompts import ChatPrompts
from tidegate_runtime.errors import ModelRefused, RequestRefused
from tidegate_runtime.tools.syntax import HERMES, LLAMA3, MISTRAL, CallSyntax, syntax_of

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] + '\n' + m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
KNOWS_TOOLS = (
    "{{ bos_token }}{% for t in tools or [] %}TOOL {{ t | tojson }}\n{% endfor %}"
    "{% for m in messages %}{{ m | tojson }}\n{% endfor %}{# [TOOL_CALLS] #}"
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city, in °C",
        "parameters": {"type": "object", "properties": {"city": {"default": None}}},
    },
}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Zürich"}'},
}
TURNS = [
    {"role": "user", "content": "How warm is it?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "call_2"}]},
    {"role": "tool", "content": "21", "tool_call_id": "call_1"},
    {"role": "tool", "content": "22", "tool_call_id": "call_2"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Every byte is a token, and Mistral's tag is a special one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<s>", "[TOOL_CALLS]"])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>")


def prompts(tokenizer: Any, template: Any, tool_parser: str | None = None) -> ChatPrompts:
    tokenizer.chat_template = template
    return ChatPrompts(tokenizer, tool_parser)


def asked(messages: list[Any] | None = None, **fields: Any) -> ChatCompletionRequest:
    body = {"model": "m", "messages": TURNS if messages is None else messages, **fields}
    return ChatCompletionRequest.model_validate(body)


def told(prompts: ChatPrompts, request: ChatCompletionRequest) -> str:
    tokens = prompts.tokens(request)
    return str(prompts._tokenizer.decode(tokens, skip_special_tokens=False))


def test_a_template_that_knows_tools_is_given_them_as_transformers_gives_them(
    tokenizer: Any,
) -> None:
    made = told(prompts(tokenizer, KNOWS_TOOLS), asked(tools=[WEATHER]))
    function = {"name": "weather", "arguments": {"city": "Zürich"}}
    calls = [{"id": f"call_{n}", "type": "function", "function": function} for n in (1, 2)]
    expected = tokenizer.apply_chat_template(
        [
            TURNS[0],
            {"role": "assistant", "content": "", "tool_calls": calls},
            {**TURNS[2], "name": "weather"},
            {**TURNS[3], "name": "weather"},
        ],
        tools=[WEATHER],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert made == expected
    assert made.startswith('<s>TOOL {"type": "function"')


def test_a_template_without_tools_is_told_of_them_in_words(tokenizer: Any) -> None:
    made = told(prompts(tokenizer, CHATML), asked(tools=[WEATHER]))
    system, user, assistant, results, _ = made.split("<|im_end|>\n")
    assert json.dumps(WEATHER["function"], ensure_ascii=False) in system
    assert "<tool_call>" in system
    assert user == "<|im_start|>user\nHow warm is it?"
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
    assert assistant == f"<|im_start|>assistant\n{call}\n{call}"
    assert results == (
        "<|im_start|>user\n<tool_response>\n21\n</tool_response>\n"
        "<tool_response>\n22\n</tool_response>"
    )


def test_the_system_message_of_the_request_comes_first(tokenizer: Any) -> None:
    messages = [{"role": "developer", "content": "Be brief."}, *TURNS[:1]]
    made = told(prompts(tokenizer, CHATML), asked(messages, tools=[WEATHER]))
    assert made.startswith("<|im_start|>system\nBe brief.\n\nYou can call")
    assert made.count("system") == 1


@pytest.mark.parametrize("fields", [{}, {"tools": [WEATHER], "tool_choice": "none"}])
def test_without_tools_to_call_none_are_told_and_none_are_read(
    tokenizer: Any, fields: dict[str, Any]
) -> None:
    for template in (CHATML, KNOWS_TOOLS):
        chat = prompts(tokenizer, template)
        request = asked(TURNS[:1], **fields)
        assert "weather" not in told(chat, request)
        assert chat.calls(request) is None


def test_a_function_without_parameters_takes_an_empty_object(tokenizer: Any) -> None:
    now = {"type": "function", "function": {"name": "now"}}
    made = told(prompts(tokenizer, KNOWS_TOOLS), asked(tools=[now]))
    assert '"parameters": {"type": "object", "properties": {}}' in made


def test_a_function_without_parameters_is_called_without_arguments(tokenizer: Any) -> None:
    now = {"type": "function", "function": {"name": "now"}}
    calls = prompts(tokenizer, KNOWS_TOOLS).calls(asked(tools=[now], tool_choice="required"))
    assert calls is not None
    assert calls.grammar is not None
    assert '"properties": {}, "additionalProperties": false' in calls.grammar.text


def test_arguments_that_are_no_object_are_refused_by_the_function(tokenizer: Any) -> None:
    text = {"type": "function", "function": {"name": "now", "parameters": {"type": "string"}}}
    with pytest.raises(ValidationError, match="arguments of a function are an object") as caught:
        asked(tools=[WEATHER, text])
    error = error_from_validation(caught.value.errors())
    assert error.param == "tools.1.function.parameters.type"
    assert "(got 'string')" in error.message


def test_a_wrong_type_in_a_schema_is_refused_by_function_and_place(tokenizer: Any) -> None:
    parameters = {"type": "object", "properties": {"zone": {"type": "strin"}}}
    now = {"type": "function", "function": {"name": "now", "parameters": parameters}}
    with pytest.raises(RequestRefused, match="parameters at /properties/zone: 'type'") as refused:
        prompts(tokenizer, KNOWS_TOOLS).calls(asked(tools=[WEATHER, now], tool_choice="required"))
    assert refused.value.param == "tools.1.function.parameters"


def test_of_several_templates_the_one_for_tools_is_used_with_tools(tokenizer: Any) -> None:
    chat = prompts(tokenizer, {"default": CHATML, "tool_use": KNOWS_TOOLS})
    assert told(chat, asked(tools=[WEATHER])).startswith("<s>TOOL")
    assert told(chat, asked()).startswith("<|im_start|>")


@pytest.mark.parametrize(
    ("template", "syntax"),
    [
        (CHATML, HERMES),
        ("{{ tools }} <tool_call> {{ tool_call | tojson }} </tool_call>", HERMES),
        ("{{ tools }} <|start_header_id|> <|python_tag|>", LLAMA3),
        ('{{ tools }} <|start_header_id|> "parameters": dictionary', LLAMA3),
        ("{{ tools }} [AVAILABLE_TOOLS] [TOOL_CALLS] [", MISTRAL),
        ("{{ tools }} <tool_call>\n<function=name>", None),
        ("{{ tools }} <tool_call>name\n<arg_key>", None),
        ("{{ tools }} [TOOL_CALLS]name[ARGS]{}", None),
        ("{{ tools }} <|start_header_id|>", None),
        ("{{ tools }} <|tool▁calls▁begin|>", None),
    ],
)
def test_the_family_is_read_from_the_template(template: str, syntax: CallSyntax | None) -> None:
    assert syntax_of(template) is syntax


def test_a_declared_parser_goes_before_the_template(tokenizer: Any) -> None:
    found = prompts(tokenizer, KNOWS_TOOLS, "hermes").calls(asked(tools=[WEATHER]))
    assert found is not None
    assert (found.syntax, found.functions) == (HERMES, frozenset({"weather"}))


def test_tools_of_an_unknown_family_are_refused_with_the_remedy(tokenizer: Any) -> None:
    chat = prompts(tokenizer, "{{ tools }} <|tool▁calls▁begin|>")
    with pytest.raises(RequestRefused, match=r"runtime\.tool_parser") as refused:
        chat.calls(asked(tools=[WEATHER]))
    assert (refused.value.param, refused.value.code) == ("tools", "unknown_tool_syntax")


def test_a_parser_that_the_template_never_teaches_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ModelRefused, match="'mistral'") as refused:
        prompts(tokenizer, CHATML, "mistral").warm()
    assert refused.value.reason == "WrongToolParser"
    prompts(tokenizer, CHATML, "hermes").warm()
    prompts(tokenizer, None, "mistral").warm()


def test_letters_around_calls_that_are_special_tokens_are_shown(tokenizer: Any) -> None:
    chat = prompts(tokenizer, KNOWS_TOOLS)
    assert chat.shown_tokens(MISTRAL) == {257: "[TOOL_CALLS]"}
    assert chat.shown_tokens(HERMES) == {}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{**TURNS[1], "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]}],
         "messages.0.tool_calls.0.function.arguments"),
        ([{**TURNS[1], "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[]"}}]}],
         "messages.0.tool_calls.0.function.arguments"),
        ([TURNS[0], TURNS[2]], "messages.1.tool_call_id"),
    ],
)  # fmt: skip
def test_a_conversation_that_does_not_fit_together_is_refused_by_place(
    tokenizer: Any, messages: list[Any], param: str
) -> None:
    with pytest.raises(RequestRefused) as refused:
        prompts(tokenizer, CHATML).tokens(asked(messages))
    assert refused.value.param == param


def test_a_model_without_a_template_points_to_completions(tokenizer: Any) -> None:
    with pytest.raises(RequestRefused, match="/v1/completions") as refused:
        prompts(tokenizer, None).tokens(asked())
    assert refused.value.code == "no_chat_template"
