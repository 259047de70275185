"""The receiver of docs/webhooks.md, as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.ports import free_port

from tidegate.protocol.webhooks import DeliveryState

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"


async def test_the_receiver_of_the_page_verifies_what_it_is_sent(post):
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    port = free_port()
    post = post.with_settings(ports=(port,), tries=99)
    hook = await post.declare(f"http://127.0.0.1:{port}/")
    environment = {**os.environ, "SECRET": hook.secret, "PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", block[1], env=environment, stdout=-1, stderr=-3
    )
    try:
        async with post.delivering():
            sent = await post.hooks.test("prj_1", hook.id)
            async with asyncio.timeout(60):
                said = await process.stdout.readline()
            [delivery] = await post.ended(hook.id)
    finally:
        process.kill()
        await process.communicate()
    assert said.decode().split() == ["webhook.test", sent.event, hook.id]
    assert delivery.status is DeliveryState.DELIVERED
