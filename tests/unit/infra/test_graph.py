"""The graph of a component as text."""

from __future__ import annotations

import pytest
from tests.unit.infra.declarations import endpoint_resources, platform_resources

from tidegate.offers import bundled_offers
from tidegate.spec import Mode
from tidegate_infra.graph.prices import instance_prices
from tidegate_infra.graph.text import graph

PRICES = {"ml.g6.xlarge": 1.0, "g6.xlarge": 0.8}


def test_a_serverless_endpoint_rests_at_zero_and_costs_nothing() -> None:
    lines = graph(endpoint_resources(Mode.SERVERLESS), {}).splitlines()
    assert lines[0] == "tidegate:aws:ServerlessEndpoint tidegate-smol"
    placed = "sagemaker EndpointConfig tidegate-smol  (0 to 4 instances, at rest 0 × ml.g6.xlarge)"
    assert f"├─ {placed}" in lines
    assert "├─ appautoscaling Target tidegate-smol  (0 to 4 by CopyCount)" in lines
    woken = "cloudwatch MetricAlarm tidegate-smol-wakes  (on NoCapacityInvocationFailures)"
    assert f"│  └─ {woken}" in lines
    assert lines[-2:] == [
        "at rest  0 × ml.g6.xlarge: 0.00 USD a month",
        "at rest  together: 0.00 USD a month",
    ]


@pytest.mark.parametrize(
    ("mode", "usd"),
    [(Mode.REALTIME, 730.0), (Mode.SERVERLESS, 0.0), (Mode.ASYNC, 0.0), (Mode.BATCH, 0.0)],
)
def test_the_month_at_rest_is_hours_times_price(mode: Mode, usd: float) -> None:
    assert f"together: {usd:.2f} USD a month" in graph(endpoint_resources(mode), PRICES)


def test_a_batch_says_what_it_may_start() -> None:
    assert "(0 to 8 vCPUs of spot, at rest 0 × g6.xlarge)" in graph(
        endpoint_resources(Mode.BATCH), {}
    )


def test_prices_come_from_the_catalogue_of_offers() -> None:
    prices = instance_prices(bundled_offers(), "us-east-1")
    assert prices["g6.xlarge"] == 0.8048
    assert not {"fargate-vcpu", "alb"} & set(prices)


@pytest.mark.parametrize("mode", Mode)
def test_every_resource_has_its_line(mode: Mode) -> None:
    text = graph(endpoint_resources(mode), PRICES)
    tree = text.split("\n\n")[0].splitlines()
    assert len(tree) == 1 + len(endpoint_resources(mode))


def test_a_price_that_is_not_known_is_not_zero() -> None:
    text = graph(platform_resources(), {"alb": 0.0225})
    assert "at rest  1 × alb: 16.43 USD a month" in text
    assert "at rest  2 × db.t4g.medium: no price a month" in text
    assert text.endswith("together: 16.43 USD a month, and what has no price\n")


def test_parts_of_a_platform_stand_under_their_components() -> None:
    lines = graph(platform_resources(), {}).splitlines()
    database = lines.index("tidegate:aws:Database tidegate")
    assert any("rds Instance tidegate" in line for line in lines[database : database + 6])
