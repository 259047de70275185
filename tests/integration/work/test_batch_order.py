"""Which line runs next: the batch that is due first, and in it lines that begin alike."""

from __future__ import annotations

from itertools import groupby

from tidegate.protocol.work import BatchRequest

CHAT = "/v1/chat/completions"


def line(kit, number, instructions):
    said = [
        {"role": "system", "content": instructions},
        {"role": "user", "content": f"question {number}"},
    ]
    return kit.line(f"line-{number}", body={"model": "m", "messages": said})


async def waiting(house, kit, work, lines, window="24h"):
    """A batch whose lines have all become rows, while there is no replica."""
    file_id = await house.upload(work, kit.jsonl(lines))
    wanted = BatchRequest(input_file_id=file_id, endpoint=CHAT, completion_window=window)
    batch = await work.batches.create(kit.principal, wanted)
    await kit.until(
        lambda: work.batches.get(kit.principal, batch.id), lambda b: b.status == "in_progress"
    )
    return batch.id


async def test_interleaved_lines_of_two_prompts_run_one_prompt_after_the_other(house, kit):
    served = await house.deploy(capacity=0)
    prompts = ("You are a poet.", "You are a judge.")
    async with house.working(group_lines=50) as work:
        lines = [line(kit, number, prompts[number % 2]) for number in range(20)]
        batch_id = await waiting(house, kit, work, lines)
        house.replicas_of(served, 1)
        done = await house.ended(work, batch_id)
        output = await house.lines_of(work, done.output_file_id)
    runs = [len(list(run)) for _, run in groupby(house.replicas.asked)]
    assert runs == [10, 10]
    assert [line["custom_id"] for line in output] == [f"line-{n}" for n in range(20)]


async def test_the_batch_that_is_due_first_runs_first_whatever_its_lines_begin_with(house, kit):
    served = await house.deploy(capacity=0)
    async with house.working(group_lines=50) as work:
        late = [line(kit, number, "You are a poet.") for number in range(5)]
        soon = [line(kit, number, f"You are number {number}.") for number in range(5)]
        ids = [
            await waiting(house, kit, work, late),
            await waiting(house, kit, work, soon, "1h"),
        ]
        house.replicas_of(served, 1)
        for batch_id in ids:
            await house.ended(work, batch_id)
    assert sorted(house.replicas.asked[:5]) == [f"You are number {n}." for n in range(5)]
    assert house.replicas.asked[5:] == ["You are a poet."] * 5
