"""What AWS says, what a lock says, and which replica is which copy."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.integration.provision.aws.conftest import SETTINGS, aws_launch

from tidegate.spec import SpeculationSpec
from tidegate_controlplane.domain.replicas import Exited, NoCapacity
from tidegate_controlplane.provision.aws.copies import Seen
from tidegate_controlplane.provision.aws.failures import explain
from tidegate_controlplane.provision.aws.locks import Holder, holder_of, locks_in
from tidegate_controlplane.provision.aws.names import component_name, is_ours, orphans, stack_name
from tidegate_controlplane.provision.aws.program import arguments, environment
from tidegate_controlplane.provision.aws.site import Component, Replica, Site
from tidegate_controlplane.provision.aws.stacks import Stacks

LOST = Exited(1, "Crashed", "lost")


# --- what went wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "reason", "command"),
    [
        (
            "Unable to provision requested ML compute capacity due to "
            "InsufficientInstanceCapacity error.",
            "NoCapacity",
            "declare another `hardware.gpu.type`",
        ),
        (
            "ResourceLimitExceeded: The account-level service limit 'ml.g6.xlarge for endpoint "
            "usage' is 0 Instances",
            "QuotaExceeded",
            "aws service-quotas list-service-quotas",
        ),
        ("api error ExpiredToken: too old", "NoCredentials", "aws sts get-caller-identity"),
        (
            "User: x is not authorized to perform: sagemaker:CreateModel",
            "AccessDenied",
            "aws sts get-caller-identity",
        ),
        (
            "Requested image tidegate:1 not found",
            "ImageNotFound",
            "aws ecr describe-images --region us-east-1 --repository-name tidegate;",
        ),
        (
            "The primary container did not pass the ping health check.",
            "Crashed",
            "aws logs tail /aws/sagemaker/InferenceComponents/tidegate-rev-1 --region us-east-1",
        ),
    ],
)
def test_a_cause_is_known_by_its_words_and_comes_with_the_next_command(
    said: str, reason: str, command: str
) -> None:
    failure = explain(said, SETTINGS, "tidegate-rev-1")
    assert failure.reason == reason
    assert failure.message.startswith(said)
    assert command in failure.message
    expected = NoCapacity if reason in ("NoCapacity", "QuotaExceeded") else Exited
    assert isinstance(failure.observation, expected)


def test_an_unknown_cause_is_told_as_it_is_but_not_at_any_length() -> None:
    failure = explain("x" * 5000 + " the end", SETTINGS)
    assert failure.reason == "AwsFailed"
    assert failure.message.endswith(" the end")
    assert len(failure.message) == 600


def test_a_profile_is_part_of_the_command() -> None:
    settings = SETTINGS.model_copy(update={"profile": "ml"})
    assert explain("AccessDenied", settings).message.endswith("get-caller-identity --profile ml")


# --- locks ----------------------------------------------------------------------------------------

SAID = (
    "error: the stack is currently locked by 1 lock(s). Either wait for the other process(es) to "
    "end or delete the lock file with `pulumi cancel`.\n"
    "  s3://b/.pulumi/locks/organization/tidegate/x/1.json: created by ann@plane-1 (pid 42) at "
    "2026-01-31T10:00:00Z"
)


@pytest.mark.parametrize(
    ("said", "host", "is_running", "holder"),
    [
        (SAID, "plane-1", False, Holder.DEAD),
        (SAID, "plane-1", True, Holder.RUNNING),
        (SAID, "plane-2", False, Holder.ANOTHER),
        (SAID + "\ncreated by bob@plane-2 (pid 7)", "plane-1", False, Holder.ANOTHER),
        ("the stack is currently locked by 1 lock(s)", "plane-1", False, Holder.ANOTHER),
    ],
)
def test_only_the_lock_of_a_dead_process_of_this_machine_may_be_taken_away(
    said: str, host: str, is_running: bool, holder: Holder
) -> None:
    assert holder_of(locks_in(said), host, lambda pid: is_running) is holder


# --- names ----------------------------------------------------------------------------------------


def test_names_fit_aws_and_tell_installations_apart() -> None:
    name = component_name(SETTINGS, "rev_01K7ZZZZZZZZZZZZZZZZZZZZZZ")
    assert name == "tidegate-rev-01k7zzzzzzzzzzzzzzzzzzzzzz"
    assert len(name) <= 63
    assert is_ours(SETTINGS, name)
    assert not is_ours(SETTINGS.model_copy(update={"name": "other"}), name)


def test_an_orphan_is_a_stack_that_no_living_deployment_has() -> None:
    stacks = [stack_name(SETTINGS, key) for key in ("dep_2", "dep_1")]
    assert orphans(SETTINGS, stacks, ["dep_1"]) == ["tidegate-dep-2"]


def test_the_image_is_told_what_was_planned() -> None:
    told = environment(aws_launch())
    assert told["TIDEGATE_MODEL_NAME"] == "smol"
    assert told["TIDEGATE_MAX_SEQUENCES"] == "3"
    assert "TIDEGATE_SOURCE_DIGEST" not in told, "it is made of ETags, which no container sees"
    assert "TIDEGATE_TOOL_PARSER" not in told
    asked = {"tool_parser": "mistral", "speculation": SpeculationSpec(method="ngram")}
    plan = aws_launch().plan.model_copy(update=asked)
    told = environment(replace(aws_launch(), plan=plan, task="embed", pooling="cls"))
    assert told["TIDEGATE_TOOL_PARSER"] == "mistral"
    assert json.loads(told["TIDEGATE_SPECULATION"])["method"] == "ngram"
    assert told["TIDEGATE_POOLING"] == "cls"


# --- which replica is which copy ------------------------------------------------------------------


def component(*keys: str) -> Component:
    site = Site("dep_1")
    for key in keys:
        site.add("c", Replica(aws_launch(key=key), 0.0, datetime(2026, 1, 1, tzinfo=UTC)))
    return site.components["rev_1"]


def seen(current: int, desired: int = 2, **rest: Any) -> Seen:
    return Seen(rest.pop("status", "InService"), desired, current, **rest)


def test_the_first_replicas_have_the_copies() -> None:
    both = component("a", "b")
    both.judge(seen(1), LOST)
    assert [each.is_ready for each in both.replicas.values()] == [True, False]
    both.judge(seen(2), LOST)
    assert [each.is_ready for each in both.replicas.values()] == [True, True]


def test_a_copy_less_is_the_loss_of_the_last_replica_that_had_one() -> None:
    both = component("a", "b")
    both.judge(seen(2), LOST)
    assert [each.launch.replica_id for each in both.leaving(seen(1))] == ["b"]
    both.judge(seen(1), LOST)
    assert [each.ended for each in both.replicas.values()] == [None, LOST]
    assert both.waiting == []


def test_an_unwanted_replica_ends_once_there_are_no_more_copies_than_wanted_ones() -> None:
    both = component("a", "b")
    both.judge(seen(2), LOST)
    first = both.replicas["a"]
    first.is_unwanted = True
    both.judge(seen(2), LOST)
    assert first.ended is None
    both.judge(seen(1), LOST)
    assert first.ended == Exited(0, "Drained", "its copy has ended")
    assert both.replicas["b"].ended is None


def test_a_copy_that_takes_long_is_not_one_that_aws_gave_up() -> None:
    assert seen(0, status="Updating", failure="an old one").why_fewer is None
    assert seen(0, failure="no room").why_fewer == "no room"
    assert seen(2, failure="an old one").why_fewer is None
    assert "AWS does not say why" in str(seen(2, status="Failed").why_fewer)


def test_only_a_replica_that_came_after_aws_gave_up_makes_it_try_again() -> None:
    one = component("a")
    assert one.tries_anew(seen(0, failure="no room"))
    one.asked_for = frozenset({"a"})
    assert not one.tries_anew(seen(0, failure="no room"))
    assert not component("a").tries_anew(seen(0))


# --- an update under way when the control plane stops ---------------------------------------------


async def test_an_update_is_asked_to_stop_and_not_killed(tmp_path: Path) -> None:
    command = tmp_path / "pulumi"
    shutil.copy(shutil.which("sleep") or "", command)
    stacks = Stacks(SETTINGS, tmp_path, None, lambda urns: None)  # type: ignore[arg-type]
    update, other = subprocess.Popen([str(command), "60"]), subprocess.Popen(["sleep", "60"])
    try:
        stacks.interrupt()
        assert await asyncio.to_thread(update.wait, 10) == -signal.SIGINT
        assert other.poll() is None
    finally:
        for each in (update, other):
            each.kill()
            each.wait()


# --- what is declared -----------------------------------------------------------------------------


def test_a_revision_is_declared_on_the_machine_of_its_plan_and_scaled_by_us() -> None:
    args = arguments(SETTINGS, aws_launch())
    assert (args.instance_type, args.accelerators, args.copies_per_instance) == (
        "ml.g6.xlarge",
        1,
        1,
    )
    assert args.scaled_by.value == "tidegate"
    assert (args.mode.value, args.min_copies, args.max_copies) == ("serverless", 0, 4)
    assert args.artifact_url == "s3://models/good/"


@pytest.mark.parametrize(
    ("asked", "channel"),
    [
        (SpeculationSpec(method="draft", draft_model="s3://models/small"), "draft_model"),
        (SpeculationSpec(method="hydra", heads="s3://models/heads/"), "heads"),
    ],
)
def test_what_guesses_is_brought_beside_the_model(asked: SpeculationSpec, channel: str) -> None:
    plan = aws_launch().plan.model_copy(update={"speculation": asked})
    launch = replace(aws_launch(), plan=plan)
    (brought,) = arguments(SETTINGS, launch).additional_urls.items()
    assert brought == (channel, getattr(asked, channel).rstrip("/") + "/")
    told = json.loads(environment(launch)["TIDEGATE_SPECULATION"])
    assert told[channel] == f"/opt/ml/additional-model-data-sources/{channel}"
    assert asked.method == told["method"]


def test_a_model_alone_has_nothing_beside_it() -> None:
    plan = aws_launch().plan.model_copy(update={"speculation": SpeculationSpec(method="ngram")})
    assert arguments(SETTINGS, replace(aws_launch(), plan=plan)).additional_urls == {}
    assert arguments(SETTINGS, aws_launch()).additional_urls == {}
