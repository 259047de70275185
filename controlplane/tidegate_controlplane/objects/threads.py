"""Blocking calls off the event loop, one at a time for each object."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tidegate_controlplane.settled import settled

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `call` returns, run in a thread.

    A cancellation waits for the call to end before it goes on: nobody closes a file descriptor
    while a thread still writes to it.
    """
    return await settled(asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs)))
