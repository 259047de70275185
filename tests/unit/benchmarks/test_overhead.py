from __future__ import annotations

import asyncio

import pytest
from benchmarks.serverless.client import Connection, Target
from benchmarks.serverless.instant_replica import Connection as ReplicaConnection
from benchmarks.serverless.overhead import SYSTEM, added


def test_what_is_added_is_the_difference_of_quantiles_in_the_median_turn() -> None:
    direct = [0.001] * 100
    turns = [(direct, [0.002] * 98 + [0.011] * 2), (direct, [0.5] * 100), (direct, direct)]
    median, last = added("load", turns)
    assert (median.system, median.workload, median.metric, median.unit) == (
        SYSTEM,
        "load",
        "p50",
        "s",
    )
    assert median.value == pytest.approx(0.001)
    assert (last.metric, last.value) == ("p99", pytest.approx(0.010))


async def test_the_client_sees_every_event_of_a_stream_and_when_it_was_sent() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ReplicaConnection(0.001), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    target = Target(f"http://127.0.0.1:{port}", "key")
    connection = await Connection.open(target)
    for stream in (True, False, True):
        await connection.ask(target.request(stream=stream, tokens=3))
    connection.close()
    server.close()
    assert len(connection.first_s) == 3
    assert len(connection.delay_s) == 8, "3 tokens and the usage, twice"
    assert all(0 <= delay < 60 for delay in connection.delay_s)
