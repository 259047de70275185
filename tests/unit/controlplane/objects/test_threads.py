"""A thread is not called off: who waits for it learns of its own end only afterwards."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tidegate_controlplane.objects.threads import in_thread


async def test_a_caller_that_is_cancelled_twice_waits_for_the_thread() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert may_end.wait(60)

    caller = asyncio.create_task(in_thread(work))
    assert await asyncio.to_thread(begun.wait, 60)
    for _ in range(2):
        caller.cancel()
        await asyncio.sleep(0.01)
        assert not caller.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_what_a_thread_raises_reaches_its_caller() -> None:
    def work() -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        await in_thread(work)
