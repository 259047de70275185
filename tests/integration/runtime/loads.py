"""Loading as a replica does, in a process of its own: torch is told of its threads only once."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llguidance

from tidegate.protocol.openai import CompletionRequest
from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.artifact.store import hold
from tidegate_runtime.artifact.warm import Shelf
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.generator import Generator
from tidegate_runtime.server.loading import load_generate
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.zygote.warming import warm

ZYGOTE = "zygote"


@dataclass
class Found:
    """The threads in which llguidance's tables were made by then, and a guided answer."""

    when_ready: list[str] = field(default_factory=list)
    when_answered: list[str] = field(default_factory=list)
    answer: str = ""


def first_grammar(config_path: Path, pattern: str, *, is_warm: bool) -> Found:
    """Load a model, warm or not, and ask for its first grammar beside another answer."""
    made = _watch_tables()
    shelf = Shelf(1 << 30)
    if is_warm:
        zygote = threading.Thread(target=warm, args=(shelf, config_path), name=ZYGOTE)
        zygote.start()
        zygote.join()
    config = ReplicaConfig.model_validate_json(config_path.read_bytes())
    held = hold(Path(config.source), shelf)
    known = shelf.model(held.artifact)
    service, engine = load_generate(config, held.artifact, Metrics("m"), print, warm=known)
    found = Found(when_ready=made.copy())
    found.answer = asyncio.run(_guided_beside_another(service, pattern))
    found.when_answered = made.copy()
    service.grammars.close()
    engine.stop("the test is over")
    held.close()
    return found


def _watch_tables() -> list[str]:
    made: list[str] = []
    original = llguidance.LLTokenizer

    def make(*arguments: Any, **options: Any) -> Any:
        made.append(threading.current_thread().name)
        return original(*arguments, **options)

    llguidance.LLTokenizer = make
    return made


async def _guided_beside_another(service: Generator, pattern: str) -> str:
    other = asyncio.create_task(_ask(service, ignore_eos=True))
    guided = await _ask(service, guided_regex=pattern)
    await other
    return guided


async def _ask(service: Generator, **fields: Any) -> str:
    request = CompletionRequest(model="test-model", prompt="one", max_tokens=12, **fields)
    return (await service.complete(request, Caller(time.monotonic()))).choices[0].text
