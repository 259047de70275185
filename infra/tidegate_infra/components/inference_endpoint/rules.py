"""What each mode demands of the arguments, as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tidegate.spec import Mode, SpecIssue
from tidegate_infra.components.inference_endpoint.fields import EndpointFields

DURABLE = (Mode.ASYNC, Mode.BATCH)
"""Modes whose results are written to S3."""


class Rule(NamedTuple):
    field: str
    is_broken: Callable[[EndpointFields], bool]
    remedy: str
    """`{mode}` stands for the mode."""


RULES = (
    Rule(
        "min_copies",
        lambda args: args.mode is Mode.REALTIME and args.min_copies < 1,
        "mode realtime is always on; set 1 or more, or take mode serverless",
    ),
    Rule(
        "min_copies",
        lambda args: args.mode is not Mode.REALTIME and args.min_copies > 0,
        "mode {mode} rests at 0; remove it, or take mode realtime",
    ),
    Rule(
        "scaled_by",
        lambda args: args.mode in DURABLE and args.scaled_by == "tidegate",
        "a control plane keeps the queue itself and needs only copies; take mode serverless",
    ),
    Rule(
        "copies_per_instance",
        lambda args: args.mode in DURABLE and args.copies_per_instance > 1,
        "mode {mode} has no inference components; set 1",
    ),
    Rule(
        "additional_urls",
        lambda args: args.mode is Mode.BATCH and bool(args.additional_urls),
        "SageMaker brings nothing to a job, which reads S3 itself; name the address in environment",
    ),
    Rule(
        "payload_url",
        lambda args: args.mode in DURABLE and args.payload_url is None,
        "mode {mode} needs s3://bucket/prefix/ for its results",
    ),
    Rule(
        "payload_url",
        lambda args: args.mode not in DURABLE and args.payload_url is not None,
        "mode {mode} answers directly; remove it",
    ),
)


def broken_rules(args: EndpointFields) -> Iterator[SpecIssue]:
    """Every demand of the mode that the arguments do not meet."""
    for rule in RULES:
        if rule.is_broken(args):
            message = rule.remedy.format(mode=args.mode)
            yield SpecIssue(rule.field, getattr(args, rule.field), message)
