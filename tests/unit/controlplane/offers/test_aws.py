"""What AWS is asked for prices, and what is made of its answers."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from tests.unit.controlplane.offers.conftest import NOW, REGION, Aws, hosting, machine, product

from tidegate.offers import Covers, bundled_hardware
from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.offers.aws import ask_aws, new_client
from tidegate_controlplane.offers.price_list import SERVICES, priced

EC2, SAGEMAKER = SERVICES[Covers.EC2], SERVICES[Covers.SAGEMAKER]


def test_a_machine_and_hosting_on_it_are_two_offers_with_their_own_prices(aws: Aws) -> None:
    aws.lists(Covers.EC2, [machine("g6.xlarge", "1.0400000000")])
    aws.lists(Covers.SAGEMAKER, [hosting("ml.g6.xlarge", "1.4560000000")])
    aws.sells_spot(["g6.xlarge"], ("g6.xlarge", "eu-west-3a", "0.51"))
    found = {offer.instance_type: offer for offer in ask_aws(REGION, NOW, aws.make_client)}
    alone, hosted = found["g6.xlarge"], found["ml.g6.xlarge"]
    assert (alone.covers, alone.usd_per_hour, alone.spot_usd_per_hour) == (Covers.EC2, 1.04, 0.51)
    assert (hosted.covers, hosted.usd_per_hour, hosted.spot_usd_per_hour) == (
        Covers.SAGEMAKER,
        1.456,
        None,
    )
    known = bundled_hardware()["g6.xlarge"]
    assert (hosted.gpu, hosted.memory_bytes, hosted.gpus) == (known.gpu, known.memory_bytes, 1)
    assert (hosted.region, hosted.as_of) == (REGION, date(2026, 11, 20))
    assert hosted.source == "AWS Price List API, AmazonSageMaker"


def test_every_page_is_read_and_unknown_machines_are_left_out(aws: Aws) -> None:
    aws.lists(
        Covers.EC2,
        [machine("g6.xlarge", "1.0"), machine("x2gd.medium", "0.1")],
        [machine("p4d.24xlarge", "30.0")],
    )
    aws.lists(Covers.SAGEMAKER, [])
    aws.sells_spot(["g6.xlarge", "p4d.24xlarge"])
    found = ask_aws(REGION, NOW, aws.make_client)
    assert sorted(offer.instance_type for offer in found) == ["g6.xlarge", "p4d.24xlarge"]


def test_the_lowest_spot_price_of_the_zones_counts(aws: Aws) -> None:
    aws.lists(Covers.EC2, [machine("g6.xlarge", "1.0")])
    aws.lists(Covers.SAGEMAKER, [])
    aws.sells_spot(
        ["g6.xlarge"],
        ("g6.xlarge", "eu-west-3a", "0.60"),
        ("g6.xlarge", "eu-west-3b", "0.40"),
        ("g6.xlarge", "eu-west-3c", "0.50"),
    )
    (offer,) = ask_aws(REGION, NOW, aws.make_client)
    assert offer.spot_usd_per_hour == 0.4


def test_prices_are_asked_where_they_are_served_and_spot_in_the_region_itself(aws: Aws) -> None:
    aws.lists(Covers.EC2, [machine("g6.xlarge", "1.0")])
    aws.lists(Covers.SAGEMAKER, [])
    aws.sells_spot(["g6.xlarge"])
    ask_aws(REGION, NOW, aws.make_client)
    assert aws.asked == [("pricing", "us-east-1"), ("ec2", REGION)]


def test_what_is_not_paid_by_the_hour_has_no_price() -> None:
    assert priced(EC2, machine("g6.xlarge", "0.0000000000")) is None
    assert priced(EC2, product({"instanceType": "g6.xlarge"}, "9.0", unit="Quantity")) is None
    assert priced(SAGEMAKER, hosting("ml.g6.xlarge", "1.5")) == ("ml.g6.xlarge", 1.5)


def test_a_refusal_says_which_rights_are_wanted_and_that_nothing_is_lost(aws: Aws) -> None:
    aws.refuses("AccessDeniedException")
    with pytest.raises(Unavailable, match=r"pricing:GetProducts.*the prices that were known stay"):
        ask_aws(REGION, NOW, aws.make_client)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoCredentialsError(), r"no credentials; start it with AWS_PROFILE"),
        (EndpointConnectionError(endpoint_url="https://x"), r"cannot be asked .*https://x"),
    ],
)
def test_each_way_of_not_being_told_is_named(error: Exception, said: str) -> None:
    def make_client(service: str, region: str) -> Any:
        raise error

    with pytest.raises(Unavailable, match=said) as raised:
        ask_aws(REGION, NOW, make_client)
    assert raised.value.code == "prices_unavailable"


def test_an_answer_that_is_no_price_list_is_said_to_be_none(aws: Aws) -> None:
    aws.lists(Covers.EC2, ['{"product": {}, "terms": {"OnDemand": {}}}'])
    with pytest.raises(Unavailable, match="is no price list"):
        ask_aws(REGION, NOW, aws.make_client)


def test_a_network_without_a_way_out_is_soon_said_to_be_one() -> None:
    """With botocore's own waits the five tries of a refresh take five minutes."""
    waits = new_client("pricing", "us-east-1").meta.config
    assert (waits.connect_timeout, waits.read_timeout) == (3, 20)
    assert waits.retries["mode"] == "standard"
