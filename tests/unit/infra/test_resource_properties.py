"""What a program writes becomes properties under Pulumi's names."""

from __future__ import annotations

from tidegate.spec import DeploymentSpec, RollbackSpec, RolloutSpec, ScalingSpec, ScheduleSpec
from tidegate_infra.provider.connection import faults
from tidegate_infra.provider.shapes import Shape
from tidegate_infra.resources.properties import properties

SHAPE = Shape(model=DeploymentSpec)


def test_specs_and_mappings_come_to_the_same() -> None:
    schedule = ScheduleSpec(cron="0 8 * * *", duration_s=60, min_replicas=1)
    written = {"scaling": ScalingSpec(max_replicas=2, schedule=(schedule,))}
    mapping = {
        "scaling": {
            "max_replicas": 2,
            "schedule": [{"cron": "0 8 * * *", "duration_s": 60, "min_replicas": 1}],
        }
    }
    assert properties(written, SHAPE) == properties(mapping, SHAPE)
    assert properties(mapping, SHAPE)["scaling"]["schedule"][0]["minReplicas"] == 1


def test_a_none_that_means_something_is_said_in_a_word() -> None:
    rollout = RolloutSpec(strategy="canary", rollback_on=RollbackSpec(error_rate=None))
    assert properties({"rollout": rollout}, SHAPE)["rollout"]["rollbackOn"] == {"errorRate": "off"}


def test_names_of_users_own_stay_as_they_are() -> None:
    labels = {"base_url": "x", "max_replicas": "y"}
    assert properties({"labels": labels}, SHAPE) == {"labels": labels}


def test_two_ways_to_name_a_platform_are_one_too_many() -> None:
    [(name, reason)] = faults({"connectionFile": "c.json", "url": "http://here"})
    assert name == "connectionFile"
    assert "give either it or 'url'" in reason
    assert faults({"url": "http://here", "apiKey": "k", "version": "1.0.0"}) == []
