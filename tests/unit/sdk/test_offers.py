"""The catalogue that comes with this version."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from tidegate.offers import Covers, Offer, bundled_hardware, bundled_offers, is_gpu

CONTENT = json.loads((files("tidegate.offers") / "catalogue.json").read_text())


def test_each_offer_is_there_once_and_says_whose_its_figures_are() -> None:
    offers = bundled_offers()
    assert len({offer.id for offer in offers}) == len(offers) > 200
    assert all(offer.source and "(20" in offer.hardware_source for offer in offers)


def test_every_source_is_dated_and_every_price_and_machine_is_of_one() -> None:
    assert all(source["text"] and source["date"] for source in CONTENT["sources"].values())
    assert {prices["source"] for prices in CONTENT["prices"]} <= CONTENT["sources"].keys()
    priced = {name for prices in CONTENT["prices"] for name in prices["usd_per_hour"]}
    assert priced == bundled_hardware().keys()
    assert {machine.get("gpu") for machine in CONTENT["machines"]} - {None} == {
        gpu["name"] for gpu in CONTENT["gpus"]
    }


def test_hosting_costs_more_than_the_machine_alone() -> None:
    prices = {(o.covers, o.region, o.instance_type): o.usd_per_hour for o in bundled_offers()}
    both = [
        (usd, prices[Covers.EC2, region, name.removeprefix("ml.")])
        for (covers, region, name), usd in prices.items()
        if (Covers.EC2, region, name.removeprefix("ml.")) in prices and covers is Covers.SAGEMAKER
    ]
    assert len(both) > 30
    assert all(1.1 < hosting / alone < 1.5 for hosting, alone in both)


def test_slices_of_a_gpu_are_no_more_than_the_gpu() -> None:
    for hardware in bundled_hardware().values():
        for part in hardware.gpu.slices if hardware.gpu else ():
            assert part.memory_share * part.count <= 1


def test_what_a_gpu_computes_in_follows_from_its_capability() -> None:
    gpus = {
        hardware.gpu.name: hardware.gpu for hardware in bundled_hardware().values() if hardware.gpu
    }
    seen = {name: (gpus[name].bf16, gpus[name].fp8) for name in ("T4", "A10G", "L4", "B200")}
    assert seen == {
        "T4": (False, False),
        "A10G": (True, False),
        "L4": (True, True),
        "B200": (True, True),
    }


def test_an_offer_is_the_same_after_the_wire() -> None:
    for offer in bundled_offers():
        assert Offer.model_validate_json(offer.model_dump_json()) == offer


@pytest.mark.parametrize(
    ("name", "wanted", "same"),
    [
        ("A100-40GB", "A100", True),
        ("A100-40GB", "a100-40gb", True),
        ("A100-40GB", "A100-80GB", False),
        ("L40S", "L4", False),
        ("NVIDIA H100 80GB HBM3", "H100", True),
        ("Tesla T4", "NVIDIA T4", True),
        ("RTX-PRO-6000", "RTX PRO 6000", True),
    ],
)
def test_a_type_of_gpu_is_asked_for_in_many_spellings(name: str, wanted: str, same: bool) -> None:
    assert is_gpu(name, wanted) is same
