"""What an endpoint takes from the platform beside it, when the file does not say otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tidegate.spec import Mode
from tidegate_infra.components.inference_endpoint.rules import DURABLE
from tidegate_infra.components.platform.args import PlatformArgs
from tidegate_infra.components.platform.platform import Platform


class Wire(NamedTuple):
    """One argument, said twice: as a value, and as the source that a program has for it."""

    field: str
    value: Callable[[PlatformArgs, Platform, str], Any]
    """From the platform's arguments, the platform, and the endpoint's name."""
    source: str
    """`{name}` stands for the endpoint's name, `{image}` for the platform's runtime image."""
    stands_in: Any = "known later"
    """What is checked in its place before there is a platform."""


PREFIX = "s3://known-later/"
ALWAYS = (
    Wire("image", lambda args, *_: args.runtime_image, "{image}"),
    Wire(
        "artifact_url",
        lambda _, platform, name: f"{platform.artifacts_url}{name}/",
        'f"{{platform.artifacts_url}}{name}/"',
        PREFIX,
    ),
    Wire(
        "execution_role_arn",
        lambda _, platform, __: platform.execution_role_arn,
        "platform.execution_role_arn",
    ),
    Wire("subnet_ids", lambda _, platform, __: platform.subnet_ids, "platform.subnet_ids", ["-"]),
    Wire(
        "security_group_ids",
        lambda _, platform, __: [platform.inference_security_group_id],
        "[platform.inference_security_group_id]",
        ["-"],
    ),
    Wire("kms_key_arn", lambda _, platform, __: platform.kms_key_arn, "platform.kms_key_arn"),
    Wire(
        "alarm_topic_arn",
        lambda _, platform, __: platform.alarm_topic_arn,
        "platform.alarm_topic_arn",
    ),
)
RESULTS = Wire(
    "payload_url",
    lambda _, platform, name: f"{platform.payloads_url}{name}/",
    'f"{{platform.payloads_url}}{name}/"',
    PREFIX,
)
"""Only where the mode writes results."""
FIELDS = tuple(wire.field for wire in ALWAYS)


def wires(mode: Mode, given: dict[str, Any]) -> Iterator[Wire]:
    """Those of an endpoint that `given` leaves open."""
    for wire in (*ALWAYS, *((RESULTS,) if mode in DURABLE else ())):
        if wire.field not in given:
            yield wire
