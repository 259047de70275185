"""Spot prices, asked of an EC2 that is played by a server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tidegate_controlplane.offers.aws import lowest_spot


@pytest.fixture
def ec2() -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield boto3.client(
        "ec2",
        region_name="us-east-1",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    server.stop()


def test_each_machine_that_is_sold_on_spot_has_a_price(ec2: Any) -> None:
    found = lowest_spot(ec2, ["g5.xlarge", "p4d.24xlarge"], datetime.now(UTC))
    assert set(found) == {"g5.xlarge", "p4d.24xlarge"}
    assert all(usd > 0 for usd in found.values())
