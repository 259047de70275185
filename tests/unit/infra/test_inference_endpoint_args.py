"""What an inference endpoint refuses to be made from."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.infra.arguments import endpoint_args

from tidegate.spec import Mode
from tidegate_infra.disks import has_own_disk
from tidegate_infra.errors import InvalidArguments

REFUSED: list[tuple[Mode, str, dict[str, Any], str]] = [
    (Mode.SERVERLESS, "name", {"name": "Not_A_Name"}, "lower-case letters"),
    (Mode.SERVERLESS, "name", {"name": "a" * 55}, "at most 54"),
    (Mode.BATCH, "name", {"name": "a" * 47}, "at most 46"),
    (Mode.SERVERLESS, "volume_gb", {"volume_gb": 100}, "ml.g6.xlarge has a disk of its own"),
    (Mode.BATCH, "volume_gb", {"volume_gb": 1}, "between 8 and 512"),
    (Mode.SERVERLESS, "instance_type", {"instance_type": "g6.xlarge"}, "'ml.g6.xlarge'"),
    (Mode.BATCH, "instance_type", {"instance_type": "ml.g6.xlarge"}, "'g6.xlarge'"),
    (Mode.SERVERLESS, "memory_mb", {"memory_mb": 64}, "between 128 and"),
    (Mode.SERVERLESS, "startup_timeout_s", {"startup_timeout_s": 3601}, "between 60 and 3600"),
    (Mode.SERVERLESS, "accelerators", {"accelerators": 2}, "ml.g6.xlarge has 1 for 1 copies"),
    (Mode.SERVERLESS, "memory_mb", {"memory_mb": 20_000}, "ml.g6.xlarge has 16384"),
    (Mode.BATCH, "cpu", {"cpu": 5}, "g6.xlarge has 4 for 1 copies"),
    (
        Mode.SERVERLESS,
        "cpu",
        {"cpu": 3, "copies_per_instance": 2, "memory_mb": 200, "accelerators": 0},
        "ask for less",
    ),
    (Mode.REALTIME, "max_copies", {"min_copies": 3, "max_copies": 2}, "min_copies, which is 3"),
    (Mode.SERVERLESS, "artifact_url", {"artifact_url": "s3://bucket/model"}, "end in a slash"),
    (
        Mode.SERVERLESS,
        "additional_urls.heads",
        {"additional_urls": {"heads": "s3://bucket/heads"}},
        "end in a slash",
    ),
    (
        Mode.SERVERLESS,
        "additional_urls",
        {"additional_urls": {"a b": "s3://bucket/heads/"}},
        "at most 64 letters",
    ),
    (
        Mode.SERVERLESS,
        "additional_urls",
        {"additional_urls": {f"c{number}": "s3://bucket/c/" for number in range(6)}},
        "SageMaker takes 5",
    ),
    (
        Mode.BATCH,
        "additional_urls",
        {"additional_urls": {"heads": "s3://bucket/heads/"}},
        "reads S3 itself",
    ),
    (Mode.SERVERLESS, "subnet_ids", {"subnet_ids": []}, "private network"),
    (Mode.SERVERLESS, "environment", {"environment": {"a-b": "1"}}, "letters, digits and '_'"),
    (Mode.SERVERLESS, "environment.A", {"environment": {"A": "x" * 1025}}, "takes 1024"),
    (Mode.SERVERLESS, "tags", {"tags": {"aws:team": "a"}}, "not AWS's own"),
    (Mode.SERVERLESS, "tags.team", {"tags": {"team": "a&b"}}, "a value is up to 256"),
    (Mode.SERVERLESS, "tags", {"tags": {f"t{n}": "" for n in range(46)}}, "45 at most"),
    (Mode.REALTIME, "min_copies", {"min_copies": 0}, "take mode serverless"),
    (Mode.SERVERLESS, "min_copies", {"min_copies": 1}, "take mode realtime"),
    (Mode.ASYNC, "scaled_by", {"scaled_by": "tidegate"}, "take mode serverless"),
    (
        Mode.ASYNC,
        "copies_per_instance",
        {"copies_per_instance": 2, "memory_mb": 4096, "accelerators": 0},
        "no inference components",
    ),
    (Mode.ASYNC, "payload_url", {"payload_url": None}, "needs s3://bucket/prefix/"),
    (Mode.REALTIME, "payload_url", {"payload_url": "s3://bucket/p/"}, "remove it"),
]


@pytest.mark.parametrize(("mode", "field", "change", "remedy"), REFUSED)
def test_a_value_that_cannot_be_is_named_with_its_remedy(
    mode: Mode, field: str, change: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(InvalidArguments) as refused:
        endpoint_args(mode, **change)
    found = {issue.field: issue for issue in refused.value.issues}
    assert list(found) == [field]
    assert remedy in found[field].message
    assert f"{field}: " in str(refused.value)


def test_a_type_that_the_catalogue_does_not_know_is_believed() -> None:
    assert endpoint_args(Mode.SERVERLESS, instance_type="ml.g99.xlarge", accelerators=8)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(InvalidArguments) as refused:
        endpoint_args(Mode.REALTIME, min_copies=0, max_copies=0, cpu=0)
    assert {issue.field for issue in refused.value.issues} == {"min_copies", "max_copies", "cpu"}


def test_copies_that_share_an_instance_need_fewer_instances() -> None:
    args = endpoint_args(
        Mode.REALTIME,
        min_copies=3,
        max_copies=5,
        copies_per_instance=2,
        memory_mb=4096,
        accelerators=0,
    )
    assert (args.min_instances, args.max_instances) == (2, 3)


@pytest.mark.parametrize(
    ("instance_type", "own"),
    [
        ("ml.g4dn.xlarge", True),
        ("ml.g5.2xlarge", True),
        ("ml.g6e.xlarge", True),
        ("ml.p4d.24xlarge", True),
        ("ml.p5en.48xlarge", True),
        ("ml.p6-b200.48xlarge", True),
        ("ml.trn1.2xlarge", True),
        ("ml.m5.large", False),
        ("ml.c7i.4xlarge", False),
        ("ml.inf2.xlarge", False),
    ],
)
def test_types_with_a_disk_of_their_own_are_known(instance_type: str, own: bool) -> None:
    assert has_own_disk(instance_type) is own
