import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.scheduler import Schedule, Scheduler
from tidegate_runtime.engine.sequence import Sequence, SequenceId, SequenceRequest


def make_sequence(
    number: int, prompt_tokens: int, *, max_tokens: int = 1000, start: int = 0, **options: Any
) -> Sequence:
    """Sequences of different `start` have nothing in common."""
    prompt = tuple(range(start * 10_000, start * 10_000 + prompt_tokens))
    request = SequenceRequest(prompt=prompt, max_tokens=max_tokens, **options)
    return Sequence.start(SequenceId(number), request)


def make_scheduler(blocks: int = 64, max_sequences: int = 8, step_tokens: int = 32) -> Scheduler:
    return Scheduler(BlockManager(blocks), max_sequences=max_sequences, step_tokens=step_tokens)


def waits(scheduler: Scheduler, sequence: Sequence) -> bool:
    return any(sequence in line for line in scheduler.waiting._lines.values())


def run_step(scheduler: Scheduler, token: int = 7, accepted: int = 0) -> Schedule:
    """One step as the engine makes it: run, then new tokens for whoever is up to date."""
    schedule = scheduler.schedule()
    for sequence, count in schedule.tokens.items():
        if count < sequence.pending_tokens:
            scheduler.advance(sequence, count)
            continue
        for _ in range(1 + min(accepted, sequence.drafts)):
            sequence.append(token)
        sequence.drafts = 0
        scheduler.advance(sequence, sequence.pending_tokens - 1)
    return schedule


def test_a_prompt_longer_than_the_budget_is_run_in_chunks() -> None:
    scheduler = make_scheduler(step_tokens=32)
    sequence = make_sequence(1, 70)
    scheduler.add(sequence)
    counts = [run_step(scheduler).tokens[sequence] for _ in range(4)]
    assert counts == [32, 32, 6, 1]


def test_decodes_come_before_prefill_chunks() -> None:
    scheduler = make_scheduler(step_tokens=32)
    old, new = make_sequence(1, 8), make_sequence(2, 100, start=1)
    scheduler.add(old)
    run_step(scheduler)
    scheduler.add(new)
    schedule = run_step(scheduler)
    assert list(schedule.tokens.items()) == [(old, 1), (new, 31)]
    assert list(run_step(scheduler).tokens.items()) == [(old, 1), (new, 31)]


def test_no_more_than_max_sequences_run() -> None:
    scheduler = make_scheduler(max_sequences=2)
    for number in range(5):
        scheduler.add(make_sequence(number, 4))
    run_step(scheduler)
    assert (len(scheduler.running), len(scheduler.waiting)) == (2, 3)


def test_the_budget_bounds_a_step() -> None:
    scheduler = make_scheduler(step_tokens=32)
    for number in range(6):
        scheduler.add(make_sequence(number, 10))
    assert sum(run_step(scheduler).tokens.values()) == 32


def test_when_blocks_run_out_the_youngest_loses_its_blocks_and_keeps_its_tokens() -> None:
    scheduler = make_scheduler(blocks=5, step_tokens=64)
    old, young = make_sequence(1, 31), make_sequence(2, 16, start=1)
    scheduler.add(old)
    scheduler.add(young)
    run_step(scheduler)
    assert scheduler.running == [old, young]
    preempted = 0
    while not preempted:
        preempted = run_step(scheduler).preempted
    assert scheduler.running == [old]
    assert waits(scheduler, young)
    assert young.blocks.length == 0
    assert young.computed_tokens == 0
    assert young.output_tokens > 0


def test_a_preempted_sequence_comes_back_before_newer_ones_and_finds_its_blocks() -> None:
    scheduler = make_scheduler(blocks=5, step_tokens=64)
    old, young, newest = (make_sequence(number, 30, start=number) for number in (1, 2, 3))
    for sequence in (old, young, newest):
        scheduler.add(sequence)
    while not waits(scheduler, young) or not young.output_tokens:
        run_step(scheduler)
    scheduler.remove(old)
    schedule = run_step(scheduler)
    assert scheduler.running[0] is young
    assert schedule.hit_tokens > 0


def test_a_removed_sequence_frees_its_blocks_at_once() -> None:
    scheduler = make_scheduler()
    running, waiting = make_sequence(1, 40), make_sequence(2, 40, start=1)
    scheduler.add(running)
    run_step(scheduler)
    scheduler.add(waiting)
    scheduler.remove(running)
    scheduler.remove(waiting)
    assert scheduler.blocks.used_blocks == 0
    assert not scheduler.has_work


# --- prefixes -------------------------------------------------------------------------------------


def test_a_known_prefix_is_not_run_again() -> None:
    scheduler = make_scheduler(step_tokens=100)
    first, second = make_sequence(1, 70), make_sequence(2, 70)
    scheduler.add(first)
    run_step(scheduler)
    scheduler.add(second)
    schedule = run_step(scheduler)
    assert schedule.tokens == {first: 1, second: 70 - 64}
    assert (schedule.hit_tokens, schedule.missed_tokens) == (64, 6)
    assert list(second.blocks.ids[:4]) == list(first.blocks.ids[:4])


def test_one_token_at_least_is_run_however_much_is_known() -> None:
    scheduler = make_scheduler(step_tokens=100)
    first, second = make_sequence(1, 64), make_sequence(2, 64)
    scheduler.add(first)
    run_step(scheduler)
    scheduler.add(second)
    assert run_step(scheduler).tokens[second] == 16


def test_what_is_known_takes_no_room() -> None:
    scheduler = make_scheduler(blocks=8, step_tokens=100)
    first, second = make_sequence(1, 90), make_sequence(2, 90)
    scheduler.add(first)
    run_step(scheduler)
    scheduler.add(second)
    run_step(scheduler)
    assert scheduler.running == [first, second]


def test_a_block_is_known_only_after_it_was_computed() -> None:
    scheduler = make_scheduler(step_tokens=100)
    first, second = make_sequence(1, 40), make_sequence(2, 40)
    scheduler.add(first)
    scheduler.schedule()
    assert scheduler.blocks.known(first.hashes(2)) == 0
    scheduler.advance(first, 31)
    assert scheduler.blocks.known(first.hashes(2)) == 1
    scheduler.add(second)
    assert scheduler.schedule().tokens.get(second) is None


def test_equal_prompts_wait_for_the_first_one_and_others_pass_them() -> None:
    scheduler = make_scheduler(step_tokens=40)
    choices = [make_sequence(number, 70) for number in range(3)]
    other = make_sequence(9, 4, start=1)
    for sequence in (*choices, other):
        scheduler.add(sequence)
    assert run_step(scheduler).tokens == {choices[0]: 40}
    assert run_step(scheduler).tokens == {choices[0]: 30, other: 4}
    assert run_step(scheduler).tokens == {choices[0]: 1, other: 1, choices[1]: 6, choices[2]: 6}


def test_nobody_waits_for_a_prompt_of_a_larger_priority() -> None:
    scheduler = make_scheduler(step_tokens=40)
    batch, sync = make_sequence(1, 70, priority=2), make_sequence(2, 70, priority=0)
    scheduler.add(batch)
    run_step(scheduler)
    scheduler.add(sync)
    assert run_step(scheduler).tokens == {sync: 70 - 32, batch: 2}


def test_equal_prompts_go_on_when_the_first_one_leaves() -> None:
    scheduler = make_scheduler(step_tokens=40)
    first, second = make_sequence(1, 70), make_sequence(2, 70)
    scheduler.add(first)
    scheduler.add(second)
    run_step(scheduler)
    scheduler.remove(first)
    assert run_step(scheduler).tokens == {second: 70 - 32}


# --- priorities and projects ----------------------------------------------------------------------


def test_a_smaller_priority_is_admitted_and_prefilled_first() -> None:
    scheduler = make_scheduler(step_tokens=32)
    batch = make_sequence(1, 100, start=1, priority=2)
    scheduler.add(batch)
    run_step(scheduler)
    later = make_sequence(2, 20, start=2, priority=1)
    sync = make_sequence(3, 20, start=3, priority=0)
    scheduler.add(later)
    scheduler.add(sync)
    assert run_step(scheduler).tokens == {sync: 20, later: 12}


def test_a_batch_sequence_gives_its_place_to_a_sync_one() -> None:
    scheduler = make_scheduler(max_sequences=2)
    old, young = (make_sequence(n, 8, start=n, priority=2) for n in (1, 2))
    scheduler.add(old)
    scheduler.add(young)
    run_step(scheduler)
    sync = make_sequence(3, 8, start=3, priority=0)
    scheduler.add(sync)
    schedule = run_step(scheduler)
    assert schedule.preempted == 1
    assert scheduler.running == [sync, old]
    assert waits(scheduler, young)
    assert schedule.tokens == {sync: 8, old: 1}


def test_a_batch_sequence_gives_its_blocks_to_a_sync_one() -> None:
    scheduler = make_scheduler(blocks=6, step_tokens=200)
    batch, sync = make_sequence(1, 60, priority=2), make_sequence(2, 60, start=1)
    scheduler.add(batch)
    run_step(scheduler)
    scheduler.add(sync)
    assert run_step(scheduler).preempted == 1
    assert scheduler.running == [sync]


def test_nobody_is_preempted_when_that_would_not_make_room() -> None:
    scheduler = make_scheduler(blocks=8, step_tokens=200)
    sync, batch = make_sequence(1, 60), make_sequence(2, 10, start=1, priority=2)
    scheduler.add(sync)
    scheduler.add(batch)
    run_step(scheduler)
    scheduler.add(make_sequence(3, 100, start=2))
    assert run_step(scheduler).preempted == 0
    assert scheduler.running == [sync, batch]


def test_equals_do_not_preempt_each_other() -> None:
    scheduler = make_scheduler(max_sequences=1)
    scheduler.add(make_sequence(1, 8))
    run_step(scheduler)
    scheduler.add(make_sequence(2, 8))
    assert run_step(scheduler).preempted == 0


def served(scheduler: Scheduler, steps: int) -> dict[str, int]:
    """Tokens that each project was served in so many steps; a sequence ends after 4 tokens."""
    total: dict[str, int] = {}
    for _ in range(steps):
        for sequence, count in run_step(scheduler).tokens.items():
            project = sequence.request.project
            total[project] = total.get(project, 0) + count
            if sequence.output_tokens >= 4:
                scheduler.remove(sequence)
    return total


def test_a_project_with_few_requests_is_served_as_much_as_one_with_many() -> None:
    scheduler = make_scheduler(max_sequences=2, step_tokens=64)
    for number in range(60):
        scheduler.add(make_sequence(number, 30, start=number, project="greedy"))
    for number in range(60, 72):
        scheduler.add(make_sequence(number, 30, start=number, project="modest"))
    total = served(scheduler, 48)
    assert total["modest"] == pytest.approx(total["greedy"], rel=0.1)


def test_long_requests_count_for_more_than_short_ones() -> None:
    scheduler = make_scheduler(max_sequences=2, step_tokens=64)
    for number in range(40):
        scheduler.add(make_sequence(number, 60, start=number, project="long"))
    for number in range(40, 200):
        scheduler.add(make_sequence(number, 10, start=number, project="short"))
    total = served(scheduler, 60)
    assert total["short"] == pytest.approx(total["long"], rel=0.25)


def test_idling_earns_no_credit() -> None:
    scheduler = make_scheduler(max_sequences=1, step_tokens=64)
    for number in range(40):
        scheduler.add(make_sequence(number, 30, start=number, project="busy"))
    served(scheduler, 60)
    for number in range(40, 80):
        scheduler.add(make_sequence(number, 30, start=number, project="late"))
    total = served(scheduler, 60)
    assert total["busy"] == pytest.approx(total["late"], rel=0.2)


def test_counters_of_projects_that_are_gone_are_dropped() -> None:
    scheduler = make_scheduler()
    for number in range(50):
        scheduler.add(make_sequence(number, 8, start=number, project=str(number)))
    while scheduler.has_work:
        served(scheduler, 1)
    assert not scheduler.waiting._served
    assert not scheduler.waiting._present


# --- drafts ---------------------------------------------------------------------------------------


def decoding(scheduler: Scheduler, *sequences: Sequence) -> None:
    for sequence in sequences:
        scheduler.add(sequence)
    run_step(scheduler)


def test_drafts_run_behind_the_pending_token_and_have_blocks() -> None:
    scheduler = make_scheduler()
    sequence = make_sequence(1, 15)
    decoding(scheduler, sequence)
    sequence.guess([7, 7, 7])
    assert run_step(scheduler, accepted=2).tokens == {sequence: 4}
    assert sequence.length == 15 + 1 + 3
    assert sequence.pending_tokens == 1
    assert sequence.blocks.length == 2


def test_drafts_take_only_what_the_budget_leaves() -> None:
    scheduler = make_scheduler(step_tokens=8)
    first, second = make_sequence(1, 4), make_sequence(2, 4, start=1)
    decoding(scheduler, first, second)
    first.guess([7] * 5)
    second.guess([7] * 5)
    assert run_step(scheduler).tokens == {first: 6, second: 2}


def test_drafts_preempt_nobody() -> None:
    scheduler = make_scheduler(blocks=3)
    first, second = make_sequence(1, 13), make_sequence(2, 13, start=1)
    decoding(scheduler, first, second)
    first.guess([7] * 9)
    second.guess([7] * 9)
    schedule = run_step(scheduler)
    assert schedule.preempted == 0
    assert schedule.tokens == {first: 10, second: 1}


def test_a_block_with_a_rejected_draft_is_not_known() -> None:
    scheduler = make_scheduler()
    sequence = make_sequence(1, 14)
    decoding(scheduler, sequence)
    sequence.guess([1, 2, 3])
    run_step(scheduler, accepted=0)
    assert sequence.computed_tokens == 15
    assert sequence.registered_blocks == 0
    run_step(scheduler)
    assert sequence.registered_blocks == 1
    assert scheduler.blocks.known(sequence.hashes(1)) == 1


# --- everything at once ---------------------------------------------------------------------------


def check(scheduler: Scheduler, everyone: set[Sequence]) -> None:
    running = scheduler.running
    assert len(running) <= scheduler.max_sequences
    assert [sequence.rank for sequence in running] == sorted(s.rank for s in running)
    assert not any(waits(scheduler, sequence) for sequence in running)
    assert len(running) + len(scheduler.waiting) == len(everyone)
    assert all(s in running or (waits(scheduler, s) and not s.blocks.length) for s in everyone)
    held = {int(block) for s in running for block in s.blocks.ids[: s.blocks.length]}
    assert len(held) == scheduler.blocks.used_blocks
    for sequence in running:
        assert sequence.computed_tokens < sequence.length
        assert sequence.computed_tokens <= sequence.blocks.length * 16
        own = sequence.blocks.ids[: sequence.blocks.length]
        assert len(np.unique(own)) == len(own)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    blocks=st.integers(8, 30),
    max_sequences=st.integers(1, 6),
    step_tokens=st.integers(1, 60),
    drafts=st.booleans(),
)
def test_any_history_keeps_every_invariant_and_ends_every_sequence(
    seed: int, blocks: int, max_sequences: int, step_tokens: int, drafts: bool
) -> None:
    chance = random.Random(seed)
    scheduler = make_scheduler(blocks, max_sequences, step_tokens)
    coming = [
        make_sequence(
            number,
            chance.randint(1, 60),
            max_tokens=chance.randint(1, 40),
            start=chance.choice((0, 0, number)),
            project=chance.choice("ab"),
            priority=chance.choice((0, 0, 2)),
        )
        for number in range(25)
    ]
    everyone: set[Sequence] = set()
    for _ in range(20_000):
        while coming and chance.random() < 0.3:
            everyone.add(coming[-1])
            scheduler.add(coming.pop())
        if everyone and chance.random() < 0.01:
            leaver = sorted(everyone, key=lambda sequence: sequence.id)[0]
            scheduler.remove(leaver)
            everyone.remove(leaver)
        if not everyone:
            if coming:
                continue
            break
        if drafts:
            for sequence in scheduler.decoding:
                sequence.guess([7] * chance.randint(0, max(0, min(5, sequence.room - 1))))
        head = min(scheduler.running, key=lambda s: s.rank, default=None)
        schedule = run_step(scheduler, accepted=chance.randint(0, 5))
        assert schedule.tokens
        assert sum(schedule.tokens.values()) <= scheduler.step_tokens
        if head is not None:
            assert head in scheduler.running or any(s.rank < head.rank for s in scheduler.running)
        for sequence in list(schedule.tokens):
            if not sequence.room:
                scheduler.remove(sequence)
                everyone.remove(sequence)
        check(scheduler, everyone)
    assert not everyone
    assert scheduler.blocks.used_blocks == 0
