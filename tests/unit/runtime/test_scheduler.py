import random

from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.scheduler import Schedule, Scheduler
from tidegate_runtime.engine.sequence import Sequence, SequenceId, SequenceRequest


def make_sequence(number: int, prompt_tokens: int) -> Sequence:
    request = SequenceRequest(prompt=tuple(range(prompt_tokens)), max_tokens=1000)
    return Sequence.start(SequenceId(number), request)


def make_scheduler(blocks: int = 64, max_sequences: int = 8, step_tokens: int = 32) -> Scheduler:
    return Scheduler(BlockManager(blocks), max_sequences=max_sequences, step_tokens=step_tokens)


def run_step(scheduler: Scheduler) -> Schedule:
    """One step as the engine makes it: run, then one new token for whoever is up to date."""
    schedule = scheduler.schedule()
    scheduler.advance(schedule)
    for sequence in schedule.tokens:
        if sequence.pending_tokens == 0:
            sequence.append(7)
    return schedule


def test_a_prompt_longer_than_the_budget_is_run_in_chunks() -> None:
    scheduler = make_scheduler(step_tokens=32)
    sequence = make_sequence(1, 70)
    scheduler.add(sequence)
    counts = [run_step(scheduler).tokens[sequence] for _ in range(4)]
    assert counts == [32, 32, 6, 1]


def test_decodes_come_before_prefill_chunks() -> None:
    scheduler = make_scheduler(step_tokens=32)
    old, new = make_sequence(1, 8), make_sequence(2, 100)
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
    old, young = make_sequence(1, 31), make_sequence(2, 16)
    scheduler.add(old)
    scheduler.add(young)
    run_step(scheduler)
    assert scheduler.running == [old, young]
    preempted = 0
    while not preempted:
        preempted = run_step(scheduler).preempted
    assert scheduler.running == [old]
    assert list(scheduler.waiting) == [young]
    assert young.blocks == []
    assert young.computed_tokens == 0
    assert young.output_tokens > 0


def test_a_preempted_sequence_comes_back_before_newer_ones() -> None:
    scheduler = make_scheduler(blocks=5, step_tokens=64)
    old, young, newest = (make_sequence(number, 30) for number in (1, 2, 3))
    scheduler.add(old)
    scheduler.add(young)
    while young not in scheduler.waiting or not young.output_tokens:
        run_step(scheduler)
    scheduler.add(newest)
    scheduler.remove(old)
    run_step(scheduler)
    assert scheduler.running[0] is young


def test_a_removed_sequence_frees_its_blocks_at_once() -> None:
    scheduler = make_scheduler()
    running, waiting = make_sequence(1, 40), make_sequence(2, 40)
    scheduler.add(running)
    run_step(scheduler)
    scheduler.add(waiting)
    scheduler.remove(running)
    scheduler.remove(waiting)
    assert scheduler.blocks.used_blocks == 0
    assert not scheduler.has_work


def test_a_random_history_keeps_every_invariant_and_ends_every_sequence() -> None:
    chance = random.Random(5)
    scheduler = make_scheduler(blocks=12, max_sequences=4, step_tokens=24)
    left = {make_sequence(number, chance.randint(1, 60)) for number in range(25)}
    goals = {sequence: chance.randint(1, 40) for sequence in left}
    for sequence in sorted(left, key=lambda item: item.id):
        scheduler.add(sequence)
    for _ in range(20_000):
        if not left:
            break
        schedule = run_step(scheduler)
        assert sum(schedule.tokens.values()) <= 24
        assert len(scheduler.running) <= 4
        assert not set(scheduler.running) & set(scheduler.waiting)
        assert all(not sequence.blocks for sequence in scheduler.waiting)
        held = [block for sequence in scheduler.running for block in sequence.blocks]
        assert len(held) == len(set(held)) == scheduler.blocks.used_blocks
        ages = [sequence.id for sequence in (*scheduler.running, *scheduler.waiting)]
        assert ages == sorted(ages)
        for sequence in list(schedule.tokens):
            assert sequence.computed_tokens <= len(sequence.blocks) * 16
            if sequence.output_tokens >= goals[sequence]:
                scheduler.remove(sequence)
                left.discard(sequence)
    assert not left
    assert scheduler.blocks.used_blocks == 0
