"""What is declared to AWS for a revision is what its plan has chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.integration.provision.launch import launch

from tidegate.protocol.resources import PlannedOffer
from tidegate.spec import GpuSpec
from tidegate_controlplane.provision.aws.program import arguments
from tidegate_controlplane.settings import AwsSettings
from tidegate_controlplane.store.ids import new_id
from tidegate_infra.components.inference_endpoint.limits import LONGEST_NAME

GIB = 1024**3
SETTINGS = AwsSettings(
    region="us-west-2",
    state="s3://state/tidegate",
    artifacts="s3://models",
    image="123456789012.dkr.ecr.us-west-2.amazonaws.com/tidegate@sha256:" + 64 * "0",
    execution_role_arn="arn:aws:iam::123456789012:role/tidegate-endpoint",
    subnets=("subnet-1",),
    security_groups=("sg-1",),
    kms_key="arn:aws:kms:us-west-2:123456789012:key/1",
)
OFFER = PlannedOffer.model_validate(
    {
        "provider": "aws",
        "covers": "sagemaker",
        "region": "us-west-2",
        "instance_type": "ml.g6e.12xlarge",
        "gpu": "L40S",
        "gpus": 1,
        "replicas": 4,
        "usable_bytes": 40 * GIB,
        "utilisation": 0.9,
        "usd_per_hour": 13.1158,
        "source": "a price list",
        "as_of": "2026-01-01",
        "minimum_usd_per_month": 0.0,
    }
)


def declared(**plan: Any) -> Any:
    wanted = launch()
    chosen = wanted.plan.model_copy(update=plan)
    return arguments(SETTINGS, replace(wanted, source="s3://models/smol", plan=chosen))


def test_a_replica_is_put_on_the_machine_that_its_plan_has_chosen() -> None:
    sizes = {"memory_bytes": 40 * GIB, "kv_cache_bytes": 30 * GIB}
    args = declared(offer=OFFER, gpu=GpuSpec(), **sizes)
    assert (args.instance_type, args.accelerators) == ("ml.g6e.12xlarge", 1)
    assert args.copies_per_instance == 4
    assert args.memory_mb == 10 * 1024


def test_a_replica_without_a_gpu_asks_for_none() -> None:
    bare = {"instance_type": "ml.c5.xlarge", "gpu": None, "gpus": 0, "replicas": 1}
    args = declared(offer=OFFER.model_copy(update=bare), memory_bytes=4 * GIB)
    assert (args.instance_type, args.accelerators) == ("ml.c5.xlarge", 0)
    assert args.memory_mb == 4 * 1024


def test_no_replica_asks_for_less_memory_than_sagemaker_gives() -> None:
    assert (
        declared(offer=OFFER, memory_bytes=GIB, kv_cache_bytes=GIB, gpu=GpuSpec()).memory_mb == 128
    )


def test_an_installation_of_the_longest_name_has_endpoints_that_aws_takes() -> None:
    named = AwsSettings.model_validate({**dict(SETTINGS), "name": "n" * 23})
    wanted = launch()
    plan = wanted.plan.model_copy(update={"offer": OFFER, "memory_bytes": 4 * GIB})
    revision = new_id("rev")
    found = arguments(
        named, replace(wanted, source="s3://models/smol", plan=plan, revision_id=revision)
    )
    assert found.name.endswith(revision.removeprefix("rev_"))
    assert len(found.name) == LONGEST_NAME
