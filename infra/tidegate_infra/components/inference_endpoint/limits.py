"""The bounds that AWS sets on single values. Source: the SageMaker API reference."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tidegate.offers import bundled_hardware
from tidegate.spec import Mode, SpecIssue
from tidegate_infra.components.inference_endpoint.fields import EndpointFields
from tidegate_infra.components.tags import tag_issues
from tidegate_infra.disks import has_own_disk

LONGEST_NAME = 54
"""SageMaker takes 63; models and configurations get 8 more characters, so that two can be."""
LONGEST_OF_BATCH = 46
"""IAM takes 64 for the role of a batch's instances, which gets 18 more."""
NAME = re.compile(rf"^[a-z](-*[a-z0-9]){{0,{LONGEST_NAME - 1}}}$")
PREFIX_URL = re.compile(r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/(?:[^/].*/)?$")
INSTANCE_TYPE = re.compile(r"^[a-z0-9-]+\.[a-z0-9-]+$")
ENVIRONMENT_KEY = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")
LONGEST_VALUE = 1024
CHANNEL = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
MOST_CHANNELS = 5
MIB = 1024 * 1024

BOUNDS: dict[str, tuple[int, int]] = {
    "memory_mb": (128, 32 * 1024 * 1024),
    "accelerators": (0, 16),
    "cpu": (1, 1024),
    "copies_per_instance": (1, 64),
    "min_copies": (0, 1000),
    "max_copies": (1, 1000),
    "max_concurrency": (1, 1000),
    "idle_s": (10, 86_400),
    "startup_timeout_s": (60, 3600),
    "download_timeout_s": (60, 3600),
    "volume_gb": (8, 512),
    "attempts": (1, 10),
}


def issues_of(args: EndpointFields) -> Iterator[SpecIssue]:
    """Every value that AWS would refuse by itself, whatever the mode."""
    longest = LONGEST_OF_BATCH if args.mode is Mode.BATCH else LONGEST_NAME
    if not NAME.match(args.name) or len(args.name) > longest:
        yield SpecIssue(
            "name",
            args.name,
            f"must be at most {longest} lower-case letters, digits and hyphens, a letter first",
        )
    yield from _instance_type(args)
    yield from _disk(args)
    yield from _room(args)
    for name, (low, high) in BOUNDS.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            yield SpecIssue(name, value, f"must be between {low} and {high}")
    if args.max_copies < args.min_copies:
        yield SpecIssue(
            "max_copies",
            args.max_copies,
            f"must be at least min_copies, which is {args.min_copies}",
        )
    for name in ("artifact_url", "payload_url"):
        yield from _prefix_url(name, getattr(args, name))
    yield from _channels(args)
    for name in ("subnet_ids", "security_group_ids"):
        if not getattr(args, name):
            yield SpecIssue(name, [], "name one at least; nothing runs outside a private network")
    yield from _environment(args)
    yield from tag_issues(args.tags)


def _instance_type(args: EndpointFields) -> Iterator[SpecIssue]:
    on_ec2 = args.mode is Mode.BATCH
    bare = args.instance_type.removeprefix("ml.")
    expected = "g6.xlarge" if on_ec2 else "ml.g6.xlarge"
    if not INSTANCE_TYPE.match(bare) or args.instance_type.startswith("ml.") is on_ec2:
        yield SpecIssue(
            "instance_type", args.instance_type, f"mode {args.mode} takes the form {expected!r}"
        )


def _disk(args: EndpointFields) -> Iterator[SpecIssue]:
    on_sagemaker = args.mode is not Mode.BATCH
    if args.volume_gb is not None and on_sagemaker and has_own_disk(args.instance_type):
        said = f"{args.instance_type} has a disk of its own, and SageMaker attaches none; remove it"
        yield SpecIssue("volume_gb", args.volume_gb, said)


def _room(args: EndpointFields) -> Iterator[SpecIssue]:
    """Copies that no instance of the type has room for; silent on types not in the catalogue."""
    hardware = bundled_hardware().get(args.instance_type.removeprefix("ml."))
    if hardware is None:
        return
    has = {
        "accelerators": hardware.gpus,
        "cpu": hardware.vcpus,
        "memory_mb": hardware.memory_bytes // MIB,
    }
    for name, most in has.items():
        asked = getattr(args, name)
        if asked * args.copies_per_instance > most:
            yield SpecIssue(
                name,
                asked,
                f"{args.instance_type} has {most} for {args.copies_per_instance} copies; "
                "ask for less, or take a larger type",
            )


def _prefix_url(name: str, value: Any) -> Iterator[SpecIssue]:
    if isinstance(value, str) and not PREFIX_URL.match(value):
        yield SpecIssue(name, value, "must be s3://bucket/prefix/ and end in a slash")


def _channels(args: EndpointFields) -> Iterator[SpecIssue]:
    if len(args.additional_urls) > MOST_CHANNELS:
        yield SpecIssue(
            "additional_urls",
            f"{len(args.additional_urls)} channels",
            f"SageMaker takes {MOST_CHANNELS}; put the rest into the artifact",
        )
    for channel, url in args.additional_urls.items():
        if not CHANNEL.match(channel):
            yield SpecIssue(
                "additional_urls",
                channel,
                "a channel is at most 64 letters, digits, '.', '_' and '-'",
            )
        yield from _prefix_url(f"additional_urls.{channel}", url)


def _environment(args: EndpointFields) -> Iterator[SpecIssue]:
    for key, value in args.environment.items():
        if not ENVIRONMENT_KEY.match(key):
            yield SpecIssue("environment", key, "a key is letters, digits and '_'")
        if isinstance(value, str) and len(value) > LONGEST_VALUE:
            yield SpecIssue(
                f"environment.{key}",
                f"{len(value)} characters",
                f"SageMaker takes {LONGEST_VALUE}; put the rest into the artifact",
            )
