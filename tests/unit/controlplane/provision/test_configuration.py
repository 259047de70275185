"""No field of a replica's configuration is forgotten on the way from its plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.integration.provision.aws.conftest import aws_launch

from tidegate.protocol.replica import ReplicaConfig
from tidegate.protocol.resources import PlannedDraft, PlannedHeads, PlannedOffload
from tidegate.spec import GpuSpec, KvSpillSpec, SpeculationSpec
from tidegate_controlplane.provision.aws.program import BROUGHT, environment
from tidegate_controlplane.provision.base import Launch
from tidegate_controlplane.provision.configuration import (
    PLACE_FIELDS,
    UNPLANNED_FIELDS,
    planned_fields,
)
from tidegate_runtime.container.environment import replica_config

BY_SAGEMAKER = {"source", "revision", "source_digest", "device", "threads", "drain_s"}


@pytest.fixture
def launch() -> Launch:
    """A launch that says something else than the default of every field."""
    plan = aws_launch().plan.model_copy(
        update={
            "precision": "int8",
            "context_tokens": 128,
            "kv_cache_bytes": 1 << 20,
            "max_sequences": 3,
            "speculation": SpeculationSpec(method="draft", draft_model="hf://o/small"),
            "draft": PlannedDraft(
                digest="sha256:e",
                revision="c0ffee",
                precision="int4",
                weights_bytes=7,
                kv_cache_bytes=1 << 10,
            ),
            "heads": PlannedHeads(digest="sha256:h", revision="cafe", weights_bytes=3),
            "kv_spill": KvSpillSpec(memory=1 << 20),
            "tool_parser": "mistral",
            "max_adapters": 2,
            "tensor_parallel": 2,
            "gpu": GpuSpec(),
            "threads": 5,
            "drain_timeout_s": 7.0,
        }
    )
    return replace(aws_launch(), plan=plan, task="embed", pooling="cls", revision="c0de")


def test_every_field_is_planned_or_says_why_it_is_not(launch: Launch) -> None:
    ways = (set(planned_fields(launch)), PLACE_FIELDS, UNPLANNED_FIELDS)
    assert set().union(*ways) == set(ReplicaConfig.model_fields)
    assert sum(map(len, ways)) == len(ReplicaConfig.model_fields), "a field is said twice"


def test_every_planned_field_carries_what_was_planned(launch: Launch) -> None:
    told = planned_fields(launch)
    silent = [name for name, value in told.items() if value == _default(name)]
    assert silent == ["offload_bytes"]
    streamed = PlannedOffload(
        resident_bytes=1 << 30, streamed_layers=2, step_bytes=9, link="disk", steps_per_gb=1.0
    )
    plan = launch.plan.model_copy(update={"offload": streamed})
    assert planned_fields(replace(launch, plan=plan))["offload_bytes"] == 1 << 30
    assert told["draft"].model_dump() == {
        "source_digest": "sha256:e",
        "revision": "c0ffee",
        "precision": "int4",
        "kv_cache_bytes": 1 << 10,
    }
    assert told["heads"].model_dump() == {"source_digest": "sha256:h", "revision": "cafe"}


def test_an_image_reads_from_its_environment_what_was_planned(launch: Launch) -> None:
    launch = replace(launch, task="generate")
    read, told = replica_config(environment(launch)), planned_fields(launch)
    brought = f"{BROUGHT}/draft_model"
    told["speculation"] = told["speculation"].model_copy(update={"draft_model": brought})
    told["draft"] = told["draft"].model_copy(update={"source_digest": None})
    for name, value in told.items():
        if name not in BY_SAGEMAKER:
            assert getattr(read, name) == value, name


def test_variables_of_an_endpoint_that_says_nothing_new_are_those_it_had() -> None:
    plan = aws_launch().plan.model_copy(update={"max_adapters": _default("max_adapters")})
    assert set(environment(replace(aws_launch(), plan=plan))) == {
        f"TIDEGATE_{name}"
        for name in (
            *("MODEL_NAME", "TASK", "PRECISION", "CONTEXT_TOKENS"),
            *("KV_CACHE_BYTES", "MAX_SEQUENCES", "KV_SPILL"),
        )
    }


def _default(name: str) -> Any:
    return ReplicaConfig.model_fields[name].get_default()
