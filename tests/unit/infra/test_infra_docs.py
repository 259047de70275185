"""The page on infrastructure shows what the code declares."""

from __future__ import annotations

import re
from pathlib import Path

import pulumi
import pytest
from tests.unit.infra.declarations import endpoint_resources, platform_resources

from tidegate.offers import bundled_offers
from tidegate.spec import Mode
from tidegate_infra.graph.offline import declared_by
from tidegate_infra.graph.prices import instance_prices
from tidegate_infra.graph.text import graph

PAGE = (Path(__file__).parents[3] / "docs" / "infra.md").read_text()


@pytest.mark.parametrize("mode", Mode)
def test_the_page_has_the_graph_of_each_mode_with_its_cost(mode: Mode) -> None:
    prices = instance_prices(bundled_offers(), "us-west-2")
    for line in graph(endpoint_resources(mode), prices).splitlines():
        assert f"    {line}\n" in PAGE or not line


def test_the_page_has_what_the_platform_runs_at_rest() -> None:
    bill = [each for each in graph(platform_resources(), {}).splitlines() if "at rest  " in each]
    assert all(f"    {line}\n" in PAGE for line in bill)


def test_the_program_of_the_page_runs_and_keeps_the_guard_rails() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    secrets = ("databasePassword", "pepper", "adminKey")
    registry = "123456789012.dkr.ecr.us-west-2.amazonaws.com/tidegate"
    told = {
        "certificate": "arn:aws:acm:us-west-2:123456789012:certificate/1",
        "controlPlaneImage": f"{registry}/control-plane:0.1.0",
        "runtimeImage": f"{registry}/runtime:0.1.0",
        **{name: name for name in secrets},
    }
    said = {f"offline:{name}": value for name, value in told.items()}

    def run() -> None:
        pulumi.runtime.set_all_config(said, [f"offline:{name}" for name in secrets])
        exec(compile(program, "docs/infra.md", "exec"), {})

    kinds = {each.type for each in declared_by(run)}
    assert {"aws:rds/instance:Instance", "aws-native:sagemaker:InferenceComponent"} <= kinds
