import itertools

import pytest
from benchmarks.prose import prose
from benchmarks.workloads import (
    CONTEXT_TOKENS,
    MAX_STREAMS,
    PREFILL_1024,
    SPECULATE_REPEAT,
    THROUGHPUT_32,
    TTFT,
    WORKS,
    Frame,
    Generation,
    Prompts,
    quick,
)

FRAME = Frame(before=(900_001, 900_002), after=(900_003,))


def make_prompts(tokens: int = 20_000) -> Prompts:
    return Prompts(range(tokens), FRAME)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_prompts_have_exactly_the_length_and_number_of_their_workload(work: Generation) -> None:
    found = make_prompts().take(work)
    assert [len(prompt) for prompt in found] == [work.prompt_tokens] * work.streams


def test_no_prompt_comes_twice_so_no_prefix_cache_can_know_it() -> None:
    prompts = make_prompts()
    found = [*prompts.take(THROUGHPUT_32), *prompts.take(TTFT), *prompts.take(PREFILL_1024)]
    tokens = list(itertools.chain.from_iterable(found))
    assert len(tokens) == len(set(tokens))


def test_prompts_are_the_same_in_every_run() -> None:
    assert make_prompts().take(THROUGHPUT_32) == make_prompts().take(THROUGHPUT_32)


def test_a_prompt_to_repeat_holds_the_text_between_the_words_that_ask_for_it() -> None:
    (prompt,) = make_prompts().take(SPECULATE_REPEAT)
    assert (*prompt[:2], prompt[-1]) == (*FRAME.before, *FRAME.after)
    assert prompt[2:-1] == list(range(SPECULATE_REPEAT.prompt_tokens - 3))


def test_a_text_that_is_used_up_is_an_error_that_says_so() -> None:
    prompts = make_prompts(200)
    prompts.take(TTFT)
    with pytest.raises(ValueError, match=r"the text has 200 tokens, and the prompts need 256"):
        prompts.take(TTFT)


def test_drivers_are_told_of_the_largest_workload() -> None:
    assert MAX_STREAMS == 64
    assert CONTEXT_TOKENS == 1025


def test_a_quick_run_has_every_workload_that_the_contract_names() -> None:
    names = {work.name for work in quick(WORKS)}
    assert {"decode_1", "throughput_32", "prefill_1024"} <= names
    assert all(work.repeats == 1 for work in quick(WORKS))


def test_the_prose_is_text_without_ruled_lines() -> None:
    text = prose()
    assert len(text) > 300_000
    assert not [line for line in text.splitlines() if len(line) > 3 and set(line) <= {"*"}]
