"""A batch's files pass through memory in pieces, however large they are."""

from __future__ import annotations

import json
import tracemalloc
from collections import deque

import pytest

from tidegate.protocol.work import BatchRequest

CHAT = "/v1/chat/completions"
MEBI = 1024 * 1024


@pytest.mark.parametrize(
    ("lines", "line_bytes"),
    [(80, MEBI // 4), pytest.param(800, MEBI // 4, marks=pytest.mark.soak)],
    ids=["20 MB", "200 MB"],
)
async def test_a_large_file_is_read_run_and_written_in_the_memory_of_a_few_lines(
    house, kit, lines, line_bytes
):
    await house.deploy(capacity=4)
    house.replicas.asked = deque(maxlen=1)  # the double would remember every prompt

    async def pieces():
        for number in range(lines):
            text = f"{number} ".ljust(line_bytes - 200, "x")
            said = [{"role": "user", "content": text}]
            line = kit.line(f"line-{number}", body={"model": "m", "messages": said})
            yield json.dumps(line).encode() + b"\n"

    async with house.working(group_lines=500) as work:
        tracemalloc.start()
        try:
            file = await work.files.create(kit.principal, kit.form_of(pieces()))
            wanted = BatchRequest(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            batch = await work.batches.create(kit.principal, wanted)
            done = await house.ended(work, batch.id, within_s=300)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        output = await work.files.get(kit.principal, done.output_file_id)
    assert done.request_counts.completed == lines
    assert file.bytes > 0.9 * lines * line_bytes and output.bytes > 0.9 * lines * line_bytes
    assert peak_bytes < 16 * MEBI
