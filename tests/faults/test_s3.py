"""An S3 server that is slow, fails, hangs up or is away."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

import pytest
from tests.conftest import S3_BUCKET
from tests.faults.checker import check
from tests.faults.client import Client
from tests.faults.history import History
from tests.faults.house import House, await_ready, key_of, url_of, work_through
from tests.faults.proxy import Proxy
from tests.faults.replica import BIG, answer_to

OBJECT_CHARS = 60_000
AWAY_S = 3.0


def slow(proxy: Proxy) -> None:
    proxy.delay_s = 0.05


def failing(proxy: Proxy) -> None:
    proxy.fail = 25


def hanging_up(proxy: Proxy) -> None:
    proxy.cut_at_bytes, proxy.cuts_left = OBJECT_CHARS * 99 // 100, 8


def away(proxy: Proxy) -> None:
    """For longer than all attempts of a request would take, one after another."""
    proxy.down = True
    threading.Timer(AWAY_S, setattr, (proxy, "down", False)).start()


@pytest.mark.soak
@pytest.mark.parametrize("trouble", [slow, failing, hanging_up, away], ids=lambda f: f.__name__)
def test_an_object_store_in_trouble_loses_and_doubles_nothing(
    trouble, fault_house: House, data_dir, s3_server, ledger
):
    proxy = Proxy(s3_server["AWS_ENDPOINT_URL"])
    with proxy.serving() as url:
        start = replace(
            fault_house.furnish(data_dir),
            objects=f"s3://{S3_BUCKET}/{trouble.__name__}",
            environment={**s3_server, "AWS_ENDPOINT_URL": url},
        )
        history = History(data_dir.with_suffix(".history"))
        fault_house.replica.asked.clear()
        client = Client(url_of(start), key_of(start), history)
        with contextlib.closing(client), fault_house.open(start) as supervisor:
            await_ready(start)
            large = [
                client.submit(f"{BIG} {n} " + "?" * OBJECT_CHARS, f"large {n}") for n in range(2)
            ]
            trouble(proxy)
            large += [
                client.submit(f"{BIG} {n} " + "?" * OBJECT_CHARS, f"large {n}") for n in range(2, 6)
            ]
            work_through(client)
            client.finish(large)
            client.list_all()
    ledger.note("s3", check(history, answer_to))
    assert supervisor.ends == [0]
    assert trouble is not hanging_up or proxy.cuts == 8
