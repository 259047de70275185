"""What tokens texts and chats are, and what text tokens are, without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tidegate.protocol.openai import ChatCompletionRequest
from tidegate.protocol.tokenize import DetokenizeRequest, TokenizeRequest
from tidegate_runtime.chat.prompts import ChatPrompts
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.tokens import Tokens

TEMPLATE = (
    "{% for t in tools or [] %}{{ t['function']['name'] }};{% endfor %}"
    "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
MESSAGES = [{"role": "developer", "content": "Über"}, {"role": "user", "content": "ä b"}]
TOOLS = [{"type": "function", "function": {"name": "weather"}}]
BEGIN = 256


@pytest.fixture(scope="module")
def loaded() -> Any:
    """Every byte is a token, and a text begins with a special one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<s>"])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BEGIN)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>")
    tokenizer.chat_template = TEMPLATE
    return SimpleNamespace(tokenizer=tokenizer, context_tokens=4, vocabulary_size=257)


@pytest.fixture
def tokens(loaded: Any) -> Tokens:
    return Tokens(loaded, ChatPrompts(loaded.tokenizer))


def asked(**fields: Any) -> TokenizeRequest:
    return TokenizeRequest.model_validate({"model": "m", **fields})


async def text_of(tokens: Tokens, ids: list[int]) -> str:
    request = DetokenizeRequest(model="m", tokens=ids)
    return (await tokens.detokenize(request)).prompt


async def test_a_prompt_has_its_special_tokens_unless_they_are_not_wanted(tokens: Tokens) -> None:
    made = await tokens.tokenize(asked(prompt="ab c", return_token_strs=True))
    assert made.tokens[0] == BEGIN
    assert made.token_strs == ["<s>", "a", "b", "Ġ", "c"]
    assert (made.count, made.max_model_len) == (5, 4), "what is too long is counted too"
    bare = await tokens.tokenize(asked(prompt="ab c", add_special_tokens=False))
    assert (bare.tokens, bare.token_strs) == (made.tokens[1:], None)
    assert (await tokens.tokenize(asked(prompt="", add_special_tokens=False))).count == 0


async def test_detokenizing_gives_the_text_back_with_its_special_tokens(tokens: Tokens) -> None:
    made = await tokens.tokenize(asked(prompt="Über  alles ."))
    assert await text_of(tokens, made.tokens) == "<s>Über  alles ."
    assert await text_of(tokens, []) == ""


@pytest.mark.parametrize("fields", [{}, {"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "none"}])
async def test_messages_are_the_tokens_of_a_chat_with_the_same_messages_and_tools(
    loaded: Any, tokens: Tokens, fields: dict[str, Any]
) -> None:
    body = {"model": "m", "messages": MESSAGES, **fields}
    chat = ChatPrompts(loaded.tokenizer).tokens(ChatCompletionRequest.model_validate(body))
    made = await tokens.tokenize(asked(messages=MESSAGES, **fields))
    assert (made.tokens, made.count) == (chat, len(chat))


async def test_messages_without_a_generation_prompt_end_with_the_last_one(tokens: Tokens) -> None:
    made = await tokens.tokenize(asked(messages=MESSAGES, add_generation_prompt=False))
    assert await text_of(tokens, made.tokens) == "system:Über\nuser:ä b\n"


@pytest.mark.parametrize("ids", [[1, 257], [-1], [2**40]])
async def test_a_token_that_is_not_in_the_vocabulary_is_refused(
    tokens: Tokens, ids: list[int]
) -> None:
    with pytest.raises(RequestRefused, match=rf"{ids[-1]} is not in the vocabulary") as caught:
        await text_of(tokens, ids)
    assert (caught.value.param, caught.value.code) == ("tokens", "invalid_token_id")


async def test_a_model_that_takes_no_chats_says_so(loaded: Any) -> None:
    with pytest.raises(RequestRefused, match="send prompt") as caught:
        await Tokens(loaded).tokenize(asked(messages=MESSAGES))
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either prompt or messages"),
        ({"prompt": "a", "messages": MESSAGES}, "either prompt or messages"),
        ({"prompt": "a", "tools": TOOLS}, "tools: only allowed with messages"),
        ({"prompt": "a", "add_generation_prompt": True}, "add_generation_prompt: only allowed"),
        ({"messages": MESSAGES, "add_special_tokens": True}, "add_special_tokens: a chat's"),
        ({"messages": MESSAGES, "tools": TOOLS * 2}, "two functions have the same name"),
        ({"prompt": "a", "truncate": 1}, "Extra inputs"),
    ],
)
def test_a_field_that_would_mean_nothing_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        asked(**fields)
