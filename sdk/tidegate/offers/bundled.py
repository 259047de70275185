"""The catalogue that came with this version: figures with their sources, in `catalogue.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from tidegate.offers.offer import Covers, Gpu, Hardware, Offer

MIB = 1024 * 1024
GB = 1_000_000_000
ML = "ml."
"""What SageMaker writes before the type of a machine."""


@cache
def bundled_offers() -> tuple[Offer, ...]:
    """Every offer of the bundled catalogue."""
    return tuple(_offers(_content(), bundled_hardware()))


@cache
def bundled_hardware() -> Mapping[str, Hardware]:
    """What the machines hold whose figures are known, by EC2's name of their type."""
    content = _content()
    gpus = {each["name"]: _gpu(each) for each in content["gpus"]}
    machines, of_gpus = (_cited(content["sources"][name]) for name in ("machines", "gpus"))
    return {
        each["type"]: Hardware(
            vcpus=each["vcpus"],
            memory_bytes=each["memory_mib"] * MIB,
            gpu=gpus.get(each.get("gpu")),
            gpus=each.get("gpus", 0),
            hardware_source=f"{machines}; {of_gpus}" if "gpu" in each else machines,
        )
        for each in content["machines"]
    }


def _offers(content: Mapping[str, Any], hardware: Mapping[str, Hardware]) -> Iterator[Offer]:
    for listed in content["prices"]:
        source = content["sources"][listed["source"]]
        covers = Covers(listed["covers"])
        for name, usd in listed["usd_per_hour"].items():
            yield Offer(
                **dict(hardware[name]),
                covers=covers,
                region=listed["region"],
                instance_type=ML + name if covers is Covers.SAGEMAKER else name,
                usd_per_hour=usd,
                source=source["text"],
                as_of=date.fromisoformat(source["date"]),
            )


def _gpu(each: Mapping[str, Any]) -> Gpu:
    bandwidth = each.get("bandwidth_gb_per_s")
    return Gpu(
        name=each["name"],
        memory_bytes=each["memory_mib"] * MIB,
        bandwidth_bytes_per_s=bandwidth and bandwidth * GB,
        compute_capability=each["compute_capability"],
        slices=each.get("slices", ()),
    )


def _cited(source: Mapping[str, str]) -> str:
    return f"{source['text']} ({source['date']})"


def _content() -> Any:
    return json.loads((files("tidegate.offers") / "catalogue.json").read_text())
