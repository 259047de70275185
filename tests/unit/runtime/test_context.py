"""Prompts made shorter: what is kept, what is never cut, and what is said of it."""

import json
import string
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.unit.runtime.engines import make_engine
from tests.unit.runtime.fake_decoder import FakeDecoder

from tidegate.protocol.openai import ChatCompletionRequest, ChatMessage, CompletionRequest
from tidegate_runtime.chat.prompts import ChatPrompts
from tidegate_runtime.context.choose import Piece, choose, joined
from tidegate_runtime.context.prompts import EMPTIED, cuttable_chat, split_tail, with_texts
from tidegate_runtime.context.relevance import relevance
from tidegate_runtime.context.segments import sentences, words
from tidegate_runtime.context.surprise import surprise
from tidegate_runtime.engine.sequence import SequenceRequest
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.generator import Generator

ALPHABET = string.ascii_letters + string.digits + string.punctuation + " \n…"
NOBODY = Caller(0.0)
FACTS = (
    "The cat sleeps on the red sofa. Rain fell all night in Bergen. The code of the safe is 4711."
)
CODE = "```python\nfor i in range(3):\n    print(i)  # why. not?\n```"
CHAT = [
    {"role": "system", "content": "Be brief. Be kind."},
    {"role": "user", "content": FACTS},
    {
        "role": "assistant",
        "content": f"Noted. Here is a loop:\n{CODE}\nThat is all there is to it.",
    },
    {"role": "user", "content": "What is the code of the safe?"},
]


class Characters:
    """A tokenizer of one character per token, with a template."""

    chat_template = "{% for one in messages %}<{{ one.role }}>{{ one.content }}\n{% endfor %}"
    special_tokens_map: ClassVar[dict[str, str]] = {}

    def __call__(self, text: Any, **options: Any) -> dict[str, Any]:
        if isinstance(text, str):
            return {"input_ids": [ALPHABET.index(character) for character in text]}
        return {"input_ids": [self(one)["input_ids"] for one in text]}

    def get_chat_template(self, *given: Any) -> str:
        return self.chat_template

    def decode(self, tokens: list[int], **options: Any) -> str:
        return "".join(ALPHABET[token] for token in tokens)

    def convert_ids_to_tokens(self, token: int) -> str:
        return ALPHABET[token]


@pytest.fixture(scope="module")
def prompts() -> ChatPrompts:
    return ChatPrompts(Characters())


@pytest.fixture
async def generator(prompts: ChatPrompts) -> AsyncIterator[Generator]:
    engine = make_engine(FakeDecoder(vocabulary=len(ALPHABET)))
    loaded: Any = SimpleNamespace(
        tokenizer=Characters(),
        vocabulary_size=len(ALPHABET),
        context_tokens=512,
        sampling_defaults={},
    )
    yield Generator(loaded, engine, prompts)
    engine.stop("the test is over")


def chat(target: int, messages: list[dict[str, Any]] = CHAT, **fields: Any) -> Any:
    method = fields.pop("method", "relevance")
    asked = {"target_tokens": target, "method": method}
    return ChatCompletionRequest.model_validate(
        {
            "model": "m",
            "messages": messages,
            "max_tokens": 3,
            "temperature": 0,
            "context_compression": asked,
        }
        | fields
    )


async def prompt_of(generator: Generator, request: ChatCompletionRequest) -> str:
    job = await generator._chat(request, NOBODY)
    return Characters().decode(list(job.sequences[0].prompt))


# --- segments -------------------------------------------------------------------------------------


@given(st.text(alphabet="ab .!?\n\"'`{}[]1,:~", max_size=80))
def test_no_cut_loses_a_character(text: str) -> None:
    for cut in (sentences, words):
        assert "".join(segment.text for segment in cut(text)) == text


def test_sentences_end_where_a_reader_would_end_them() -> None:
    text = 'Version 1.2 is out. "Really?" he said! Yes...\nA new line'
    assert [segment.text for segment in sentences(text)] == [
        "Version 1.2 is out.",
        ' "Really?"',
        " he said!",
        " Yes...",
        "\nA new line",
    ]


def test_what_has_no_end_is_cut_between_words() -> None:
    text = "word " * 300
    found = [segment.text for segment in sentences(text)]
    assert "".join(found) == text
    assert all(300 < len(part) <= 400 and part.strip().endswith("word") for part in found[:-1])
    assert [len(segment.text) for segment in sentences("x" * 900)] == [400, 400, 100]


def test_languages_without_blanks_have_sentences_and_words() -> None:
    text = "猫は寝ている。鍵は箱の中。雨が降る。"
    found = [segment.text for segment in sentences(text)]
    assert found == ["猫は寝ている。", "鍵は箱の中。", "雨が降る。"]
    values = relevance(found, "鍵はどこ?")
    assert max(range(3), key=values.__getitem__) == 1


@pytest.mark.parametrize(
    "block",
    [
        CODE,
        "~~~\nno. end",
        json.dumps({"a": [1, 2, {"b": "x. y! z?"}]}, indent=2),
        '[{"a": 1},\n {"a": 2}]',
    ],
)
def test_code_and_json_are_one_piece(block: str) -> None:
    for cut in (sentences, words):
        found = cut(f"Some words. And this:\n{block}" + ("" if "~" in block else "\nAfter it."))
        assert [segment.text for segment in found if segment.whole] == [block]
    assert not any(segment.whole for segment in sentences("{this} is [no] json. {"))


# --- what is worth keeping ------------------------------------------------------------------------


def test_a_sentence_that_shares_rare_words_with_the_question_is_closest() -> None:
    pieces = [segment.text for segment in sentences(FACTS)]
    values = relevance(pieces, "What is the code of the safe?")
    assert max(range(3), key=values.__getitem__) == 2
    assert relevance(pieces, "Warum?") == [0.0, 0.0, 0.0]
    assert relevance([], "x") == []


def test_the_most_valuable_pieces_stay_in_their_order() -> None:
    pieces = [
        Piece(text, content, tokens, value)
        for text, content, tokens, value in (
            (0, " a", 4, 1.0),
            (0, " b", 4, 3.0),
            (1, " c", 9, 2.0),
            (1, " d", 4, 1.0),
            (1, " e", 1, 0.0),
        )
    ]
    assert joined(choose(pieces, 9), 2) == ["b", "d e"]
    assert joined(choose(pieces, 22), 2) == ["a b", "c d e"]
    assert joined(choose(pieces, 0), 2) == ["", ""]


async def test_surprise_is_what_the_model_says_of_each_token(generator: Generator) -> None:
    like = SequenceRequest(prompt=(), max_tokens=0, prompt_logprobs=True)
    pieces = [[3, 1, 4], [], [1, 5, 9, 2], [6]]
    whole = await surprise(generator._engine, pieces, like, 512)
    asked = CompletionRequest.model_validate(
        {"model": "m", "prompt": [3, 1, 4, 1, 5, 9, 2, 6], "echo": True, "logprobs": 0}
        | {"max_tokens": 0}
    )
    made = (await generator.complete(asked, NOBODY)).choices[0].logprobs
    assert made is not None
    nats = [-value for value in made.token_logprobs if value is not None]
    mean = sum(nats) / 7
    assert whole == pytest.approx(
        [(mean + nats[0] + nats[1]) / 3, 0.0, sum(nats[2:6]) / 4, nats[6]]
    )
    apart = await surprise(generator._engine, pieces, like, 4)
    assert apart[2] != pytest.approx(whole[2]), "a window knows nothing of the one before"
    assert len(await surprise(generator._engine, [list(range(30))], like, 4)) == 1


# --- requests -------------------------------------------------------------------------------------


async def test_what_the_question_is_about_stays_and_the_rest_goes(generator: Generator) -> None:
    prompt = await prompt_of(generator, chat(120))
    assert len(prompt) <= 120
    assert "<system>Be brief. Be kind.\n" in prompt
    assert prompt.endswith("<user>What is the code of the safe?\n")
    assert "<user>The code of the safe is 4711.\n" in prompt
    assert "Rain" not in prompt


@pytest.mark.parametrize("method", ["relevance", "surprise", "tokens"])
@pytest.mark.parametrize("target", [110, 150, 200, 240])
async def test_a_target_is_met_and_no_code_is_broken(
    generator: Generator, method: str, target: int
) -> None:
    prompt = await prompt_of(generator, chat(target, method=method))
    assert target - 70 < len(prompt) <= target
    assert CODE in prompt or "```" not in prompt
    roles = [f"<{one['role']}>" for one in CHAT]
    assert [part for part in roles if part in prompt] == roles
    assert prompt.count("<user>") == 2


async def test_a_message_that_is_cut_away_leaves_its_turn(generator: Generator) -> None:
    prompt = await prompt_of(generator, chat(84))
    assert f"<assistant>{EMPTIED}\n" in prompt


async def test_a_target_that_cannot_be_reached_names_the_one_that_can(generator: Generator) -> None:
    with pytest.raises(RequestRefused, match="84 are never cut") as refused:
        await prompt_of(generator, chat(60))
    assert refused.value.param == "context_compression.target_tokens"
    assert len(await prompt_of(generator, chat(84))) == 84


async def test_a_prompt_within_its_target_stays_as_it_is(generator: Generator) -> None:
    made = await generator.chat(chat(400, method="surprise"), NOBODY)
    assert made.usage is not None
    details = made.usage.prompt_tokens_details
    assert details is not None
    assert (details.compressed_from_tokens, details.scoring_tokens) == (made.usage.prompt_tokens, 0)
    plain = await generator.chat(chat(400, context_compression=None), NOBODY)
    assert plain.choices == made.choices
    assert plain.usage is not None
    assert plain.usage.prompt_tokens_details is not None
    assert plain.usage.prompt_tokens_details.compressed_from_tokens is None


async def test_usage_says_what_was_cut_and_what_that_took(generator: Generator) -> None:
    whole = sum(len(f"<{one['role']}>{one['content']}\n") for one in CHAT)
    asked = chat(150, method="surprise", n=2, stream=True, stream_options={"include_usage": True})
    *_, last = [chunk async for chunk in generator.stream_chat(asked, NOBODY)]
    made = await generator.chat(chat(150, method="surprise", n=2), NOBODY)
    for usage in (last.usage, made.usage):
        assert usage is not None
        details = usage.prompt_tokens_details
        assert details is not None
        assert details.compressed_from_tokens == whole
        scored = len(FACTS) + len(CHAT[2]["content"])
        assert details.scoring_tokens == scored
        assert scored + 100 < usage.prompt_tokens <= scored + 150
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_the_end_of_a_prompt_is_what_is_continued(generator: Generator) -> None:
    text = f"{FACTS} " * 4 + "So the code of the safe is"
    asked = CompletionRequest.model_validate(
        {"model": "m", "prompt": [text, "short"], "max_tokens": 3}
        | {"context_compression": {"target_tokens": 240}}
    )
    job = await generator._completion(asked, NOBODY)
    first, second = (Characters().decode(list(one.prompt)) for one in job.sequences)
    assert first.endswith(split_tail(text)[1])
    assert first.endswith("So the code of the safe is")
    assert 150 < len(first) <= 240
    assert second == "short"
    assert job.compressed_from_tokens == len(text) + len("short")


async def test_more_than_can_be_scored_is_refused_before_it_is_run(generator: Generator) -> None:
    long = [{"role": "user", "content": "Say a. " * 700}, CHAT[-1]]
    with pytest.raises(RequestRefused, match="4900 tokens are too many to score; at most 4096"):
        await prompt_of(generator, chat(200, long, method="surprise"))
    assert len(await prompt_of(generator, chat(200, long))) <= 200


def test_messages_with_more_than_a_text_are_never_cut() -> None:
    messages = [ChatMessage.model_validate(one) for one in CHAT]
    prompt = cuttable_chat(messages, len)
    assert list(prompt.texts) == [CHAT[1]["content"], CHAT[2]["content"]]
    assert prompt.question == CHAT[3]["content"]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    tools = [
        ChatMessage.model_validate(one)
        for one in (
            {"role": "assistant", "content": "A long thought.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "A long result. Very long."},
        )
    ]
    assert cuttable_chat([*messages[:3], *tools, messages[3]], len).texts == prompt.texts
    alone = cuttable_chat(messages[:1], len)
    assert not alone.texts
    answered = [*messages, ChatMessage(role="assistant", content="It is")]
    assert cuttable_chat(answered, len).texts == prompt.texts
    assert with_texts(messages, ["", "kept"])[1].content == EMPTIED
    assert with_texts(messages, prompt.texts) == messages


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True}, "echo"),
        ({"prompt": [1, 2, 3]}, "context_compression"),
        ({"context_compression": {"target_tokens": 0}}, "context_compression.target_tokens"),
        ({"context_compression": {"target_tokens": 9, "method": "x"}}, "method"),
        ({"context_compression": {}}, "target_tokens"),
    ],
)
def test_what_cannot_be_compressed_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    given_fields = {"prompt": "a text", "context_compression": {"target_tokens": 20}, **fields}
    with pytest.raises(ValidationError, match=param):
        CompletionRequest.model_validate({"model": "m", **given_fields})
