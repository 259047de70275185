"""Sequences that follow a grammar, in the engine, over a decoder without weights."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import llguidance
import numpy as np
import pytest
from tests.unit.runtime.engines import (
    GREEDY,
    Steps,
    make_engine,
    outputs_of,
    tokens_of,
    wait_for_no_blocks,
)
from tests.unit.runtime.fake_decoder import FakeDecoder
from tests.unit.runtime.grammars import (
    END,
    SIZE,
    grammar,
    opened_vocabulary,
    regex,
    schema,
    text_of,
)

from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.sequence import SamplingParams, SequenceRequest
from tidegate_runtime.errors import GrammarTooCostly
from tidegate_runtime.grammar import matcher as matching
from tidegate_runtime.grammar.definition import definition
from tidegate_runtime.grammar.matcher import Grammar
from tidegate_runtime.grammar.source import GrammarSource
from tidegate_runtime.server.envelope import error_body, error_status
from tidegate_runtime.speculation.base import Reach
from tidegate_runtime.speculation.draft_model import DraftModelProposer
from tidegate_runtime.speculation.ngram import NgramProposer

Start = Callable[..., Engine]
HABIT = 0.8
A = ord("a") - ord("!")
"""The token of this letter; those of others follow."""
ITEM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]{1,9}$"},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["red", "rusty"]}, "maxItems": 3},
    },
    "required": ["name", "count", "tags"],
    "additionalProperties": False,
}


def decoder(seed: int = 1, habit: float = HABIT) -> FakeDecoder:
    return FakeDecoder(vocabulary=SIZE, habit=habit, seed=seed)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    engines: list[Engine] = []

    def make(**options: Any) -> Engine:
        options = {"eos_tokens": frozenset({END}), **options}
        engines.append(make_engine(decoder(), **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.stop("the test is over")


def requests() -> list[SequenceRequest]:
    """Greedy and drawn, with a grammar and without, penalized or biased now and then."""
    item, digits = schema(ITEM), regex("([0-9]{1,3},){2,12}[0-9]")
    made = []
    for number in range(12):
        sampling = GREEDY if number % 2 else SamplingParams(seed=number, top_p=0.95)
        if number % 5 == 0:
            sampling = replace(sampling, presence_penalty=0.5, logit_bias={ord("r"): 2.0})
        prompt = tuple(number + at % 7 for at in range(20 + number))
        kind = [item, digits, None][number % 3]
        made.append(SequenceRequest(prompt, 40, sampling, grammar=kind, min_tokens=number % 4))
    return made


async def all_of(engine: Engine, asked: list[SequenceRequest]) -> list[list[int | None]]:
    return list(await asyncio.gather(*(tokens_of(engine, request) for request in asked)))


def draft_model() -> DraftModelProposer:
    small = decoder()
    small.allocate(512)
    return DraftModelProposer(small, BlockManager(512))


ALONE: list[list[int | None]] = []
"""What each request gives by itself; worked out once."""
MIXES: dict[str, Callable[[], dict[str, Any]]] = {
    "all at once": lambda: {"max_sequences": 32},
    "a tight cache": lambda: {"max_sequences": 16, "blocks": 14},
    "n-grams": lambda: {"proposer": NgramProposer(), "eager": True},
    "a perfect draft model": lambda: {"proposer": draft_model(), "eager": True},
}


@pytest.mark.parametrize("mix", MIXES)
async def test_tokens_under_a_grammar_are_the_same_in_any_company(start: Start, mix: str) -> None:
    if not ALONE:
        engine = start(max_sequences=1)
        ALONE.extend([await tokens_of(engine, request) for request in requests()])
    steps = Steps()
    assert await all_of(start(observer=steps, **MIXES[mix]()), requests()) == ALONE
    for request, tokens in zip(requests(), ALONE, strict=True):
        if request.grammar is not None and len(tokens) < request.max_tokens:
            text = text_of(tokens)
            assert text.count(",") <= 12 if text[0].isdigit() else json.loads(text)["count"] < 100
    if "tight" in mix:
        assert steps.total.preempted > 0
    if "proposer" in MIXES[mix]():
        assert 0 < steps.total.accepted_tokens < steps.total.drafted_tokens


async def test_others_get_the_tokens_that_they_get_without_the_grammars(start: Start) -> None:
    asked = requests()
    free = [request for request in asked if request.grammar is None]
    without = await all_of(start(), free)
    beside = await all_of(start(), asked)
    found = zip(asked, beside, strict=True)
    assert [tokens for one, tokens in found if one.grammar is None] == without


async def test_a_text_ends_where_its_grammar_ends(start: Start) -> None:
    request = SequenceRequest((1, 2), 200, SamplingParams(seed=3), grammar=schema(ITEM))
    outputs = await outputs_of(start(), request)
    assert outputs[-1].finish_reason == "stop"
    assert outputs[-1].token == ord("}") - ord("!")  # the tokenizer's bytes begin with "!"
    item = json.loads(text_of([output.token for output in outputs]))
    assert list(item) == ITEM["required"]


EAGER_TO_END = SamplingParams(temperature=0.0, logit_bias={END: 100.0})


@pytest.mark.parametrize(
    ("options", "length"),
    [({}, 4), ({"min_tokens": 9}, 9), ({"ignore_eos": True}, 20)],
    ids=["where it may", "not before min_tokens", "not where it is ignored"],
)
async def test_the_end_comes_only_where_the_grammar_may_end(
    start: Start, options: dict[str, Any], length: int
) -> None:
    request = SequenceRequest((1, 2), 20, EAGER_TO_END, grammar=regex("[a-c]{4,}"), **options)
    tokens = await tokens_of(start(), request)
    assert len(text_of(tokens)) == length
    assert (END in tokens) == ("ignore_eos" not in options)


@pytest.mark.parametrize("options", [{"min_tokens": 9}, {"ignore_eos": True}, {}])
async def test_nothing_follows_a_finished_grammar(start: Start, options: dict[str, Any]) -> None:
    request = SequenceRequest((1, 2), 20, GREEDY, grammar=regex("[a-c]{4}"), **options)
    outputs = await outputs_of(start(), request)
    assert len(outputs) == 4
    assert outputs[-1].finish_reason == "stop"


# After the letter nothing may follow, which the parser only finds out token by token.
ONLY_END = 'start: "a" more?\nmore: NONE more\nNONE: /[^\\s\\S]/'


@pytest.mark.parametrize("options", [{"min_tokens": 9}, {"ignore_eos": True}, {}])
async def test_an_end_that_is_not_wanted_comes_where_nothing_else_may(
    start: Start, options: dict[str, Any]
) -> None:
    asked = grammar(GrammarSource.ebnf(ONLY_END, "guided_grammar"))
    outputs = await outputs_of(
        start(), SequenceRequest((1, 2), 9, GREEDY, grammar=asked, **options)
    )
    assert [output.token for output in outputs] == [ord("a") - ord("!"), END]
    assert outputs[-1].finish_reason == "stop"


async def test_log_probabilities_are_the_models_own(start: Start) -> None:
    sampling = replace(GREEDY, logprobs=1)
    forced = SequenceRequest((1, 2), 1, sampling, grammar=regex("z"))
    (output,) = await outputs_of(start(), forced)
    assert output.logprobs is not None
    assert output.logprobs.logprob < -1.0
    assert output.logprobs.top[0][0] != output.token


async def test_choices_of_one_prompt_stand_each_where_they_are(start: Start) -> None:
    item = schema(ITEM)
    asked = [
        SequenceRequest((5, 6), 90, SamplingParams(seed=1), grammar=item, index=n, choice=n)
        for n in range(4)
    ]
    texts = [""] * 4
    async with start().generate(asked) as events:
        async for event in events:
            texts[event.index] += text_of([event.token])
    assert len(set(texts)) == 4
    assert all(json.loads(text) for text in texts)


async def test_a_grammar_that_grows_too_costly_ends_its_sequence_alone(start: Start) -> None:
    bomb = grammar(GrammarSource.ebnf('start: e\ne: e e e e e | e e e e | e e | "a" | ', "x"))
    engine = start()
    free = SequenceRequest((3, 4), 30, GREEDY)
    guilty = SequenceRequest((1, 2), 200, GREEDY, grammar=bomb, ignore_eos=True)
    failed, *beside = await asyncio.gather(
        tokens_of(engine, guilty),
        tokens_of(engine, free),
        tokens_of(engine, replace(free, grammar=regex("[a-z]+"))),
        return_exceptions=True,
    )
    assert isinstance(failed, GrammarTooCostly)
    assert "grammar" in failed.message
    assert error_status(failed) == 400
    told = error_body(failed).error
    assert (told.type, told.code) == ("invalid_request_error", "schema_too_complex")
    assert beside == [
        await tokens_of(start(), free),
        await tokens_of(start(), replace(free, grammar=regex("[a-z]+"))),
    ]
    await wait_for_no_blocks(engine)


def followed(grammar: Grammar, tokens: int, budget_s: float | None = None) -> None:
    """Follow a grammar of the letter a for so many tokens."""
    matcher, masks = grammar.matcher(), np.zeros((1, -(-SIZE // 32)), dtype=np.int32)
    if budget_s is not None:
        matcher._left_s = budget_s
    for _ in range(tokens):
        matcher.fill(masks, [])
        matcher.take(A)


def test_a_sequence_may_spend_so_much_of_the_processor_and_no_more() -> None:
    # Without a bound of the parser, which would stop it as well.
    unbounded = llguidance.LLParserLimits(max_items_in_row=10**7, step_lexer_fuel=10**9)
    text = definition("ebnf", 'start: e\ne: e e e | e e | "a"', lenient=False)
    state = llguidance.LLMatcher(opened_vocabulary(), text, log_level=0, limits=unbounded)
    with pytest.raises(GrammarTooCostly, match="it is too ambiguous"):
        followed(Grammar(state), 250)


def test_one_token_may_cost_so_much_and_no_more() -> None:
    lengths = " | ".join("e " * count for count in range(2, 9))
    bomb = grammar(GrammarSource.ebnf(f'start: e\ne: {lengths} | "a"', "x"))
    with pytest.raises(GrammarTooCostly, match=r"row has \d+ items"):
        followed(bomb, 40, budget_s=1e9)


def test_taking_a_token_is_paid_for_too() -> None:
    matcher = regex("a+").matcher()
    matcher._left_s = 0.0
    with pytest.raises(GrammarTooCostly, match="it is too ambiguous"):
        matcher.take(A)


def test_a_token_that_the_grammar_cannot_follow_ends_the_sequence() -> None:
    matcher = regex("a+").matcher()
    matcher.take(A)
    with pytest.raises(GrammarTooCostly, match="too costly to follow"):
        matcher.take(A + 1)


def test_every_row_of_a_mask_brings_its_own_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "ROW_S", 60.0)
    matcher, masks = regex("a+").matcher(), np.zeros((2, -(-SIZE // 32)), dtype=np.int32)
    matcher._left_s = 0.0
    matcher.fill(masks, [A])
    assert matcher._left_s > 60.0


async def test_leaving_early_frees_what_a_sequence_held(start: Start) -> None:
    engine = start()
    async with engine.generate([SequenceRequest((1,), 200, GREEDY, grammar=regex("a+"))]) as events:
        await anext(events)
    await wait_for_no_blocks(engine)


class Digits:
    """Always guesses two letters and a digit."""

    at_once = False

    def reach(self, sequence: Any) -> Reach:
        return Reach(3)

    def propose(self, wanted: Any) -> dict[Any, list[int]]:
        letter, digit = (ord(character) - ord("!") for character in "a1")
        return {sequence: [letter, letter, digit][:count] for sequence, count in wanted.items()}

    def forget(self, sequence: Any) -> None:
        pass


async def test_drafts_that_the_grammar_forbids_are_not_run(start: Start) -> None:
    steps = Steps()
    engine = start(proposer=Digits(), eager=True, observer=steps)
    asked = SequenceRequest((1, 2), 30, GREEDY, grammar=regex("a{30}"))
    assert text_of(await tokens_of(engine, asked)) == "a" * 30
    assert steps.total.drafted_tokens == steps.total.accepted_tokens > 0
