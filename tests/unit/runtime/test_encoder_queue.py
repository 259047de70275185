"""Inputs of many requests share the rounds of one encoder."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence

import pytest
import torch

from tidegate_runtime.engine import encoder_queue
from tidegate_runtime.engine.embedder import EncoderInput
from tidegate_runtime.engine.encoder_queue import EncoderQueue, Waiting, next_round
from tidegate_runtime.errors import GenerationFailed, RequestRefused


def text(tokens: int) -> EncoderInput:
    return EncoderInput([1] * tokens)


class Lengths:
    """An encoder whose vector is its input's length; it can be held, and fails on 13 tokens."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def encode(self, inputs: Sequence[EncoderInput]) -> torch.Tensor:
        self.may_go.wait(60)
        lengths = [len(each.tokens) for each in inputs]
        self.calls.append(lengths)
        if 13 in lengths:
            raise RuntimeError("thirteen")
        return torch.tensor(lengths, dtype=torch.float32).unsqueeze(1)


async def test_a_round_takes_of_each_request_in_turn_within_its_bound() -> None:
    large, small = Waiting.of([text(30)] * 9), Waiting.of([text(10)])
    waiting = deque([large, small])
    found = [[piece.request is small for piece in next_round(waiting, 70)]]
    assert found == [[False, True, False]]
    assert [len(next_round(waiting, 70)) for _ in range(4)] == [2, 2, 2, 1]
    assert next_round(waiting, 70) == []


async def test_who_was_passed_over_is_first_in_the_next_round() -> None:
    requests = [Waiting.of([text(40)] * 3) for _ in range(3)]
    waiting = deque(requests)
    rounds = [next_round(waiting, 80) for _ in range(3)]
    order = [requests.index(piece.request) for pieces in rounds for piece in pieces]
    assert order == [0, 1, 2, 0, 1, 2]


async def test_an_input_larger_than_a_round_has_one_of_its_own() -> None:
    waiting = deque([Waiting.of([text(500), text(5)])])
    assert [len(next_round(waiting, 70)) for _ in range(2)] == [1, 1]


async def test_requests_that_arrive_together_are_encoded_together_and_get_their_own() -> None:
    encoder = Lengths()
    queue = EncoderQueue(encoder)
    encoder.may_go.clear()
    first = asyncio.create_task(queue.encode([text(3)]))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(queue.encode([text(n), text(n + 20)])) for n in (7, 4, 6, 5)]
    await asyncio.sleep(0.01)
    assert queue.waiting == 8
    encoder.may_go.set()
    assert [float(each) for each in await first] == [3]
    made = await asyncio.gather(*rest)
    assert [[float(each) for each in one] for one in made] == [[7, 27], [4, 24], [6, 26], [5, 25]]
    assert encoder.calls == [[3], [4, 5, 6, 7, 24, 25, 26, 27]]
    assert queue.waiting == 0


async def test_inputs_of_a_caller_who_left_are_not_encoded() -> None:
    encoder = Lengths()
    queue = EncoderQueue(encoder)
    encoder.may_go.clear()
    first = asyncio.create_task(queue.encode([text(3)]))
    await asyncio.sleep(0.01)
    gone = asyncio.create_task(queue.encode([text(9)] * 5))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    encoder.may_go.set()
    await first
    await queue.encode([text(4)])
    assert encoder.calls == [[3], [4]]


async def test_a_failed_round_ends_its_requests_and_no_others() -> None:
    queue = EncoderQueue(Lengths())
    with pytest.raises(GenerationFailed, match="RuntimeError: thirteen"):
        await queue.encode([text(13)])
    assert [float(each) for each in await queue.encode([text(4)])] == [4]


async def test_too_many_waiting_tokens_are_refused_until_some_are_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder_queue, "MAX_WAITING_TOKENS", 100)
    encoder = Lengths()
    queue = EncoderQueue(encoder)
    encoder.may_go.clear()
    first = asyncio.create_task(queue.encode([text(3)]))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(queue.encode([text(60)]))
    await asyncio.sleep(0.01)
    with pytest.raises(RequestRefused, match="60 tokens wait") as refused:
        await queue.encode([text(50)])
    assert (refused.value.status, refused.value.retry_after_s) == (503, 1)
    encoder.may_go.set()
    await asyncio.gather(first, second)
    assert len(await queue.encode([text(150)])) == 1
