"""What Pulumi or AWS said went wrong, and the next command to type.

The texts are those of the Pulumi CLI and of AWS error codes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MOST_CHARACTERS = 600
"""Of what was said; the end of it names the cause."""


class Kind(NamedTuple):
    pattern: re.Pattern[str]
    remedy: str
    """`{stack}` stands for Pulumi's whole name of the stack, `{state}` for its back end."""


def _kind(pattern: str, remedy: str) -> Kind:
    return Kind(re.compile(pattern, re.IGNORECASE), remedy)


LOCKED = "when that runs no more: PULUMI_BACKEND_URL='{state}' pulumi cancel --yes --stack {stack}"
KINDS = (
    _kind(r"currently locked by|conflict: Another update", LOCKED),
    _kind(
        r"incorrect passphrase|passphrase must be set",
        "it is the one of the first `up`: export PULUMI_CONFIG_PASSPHRASE=…",
    ),
    _kind(
        r"ExpiredToken|InvalidClientTokenId|UnrecognizedClient|security token|"
        r"no valid credential|unable to locate credentials|NoCredentialProviders",
        "look who you are: aws sts get-caller-identity",
    ),
    _kind(
        r"AccessDenied|is not authorized to perform|UnauthorizedOperation",
        "allow it to whoever this is: aws sts get-caller-identity",
    ),
    _kind(r"NoSuchBucket|bucket does not exist", "make it once: aws s3 mb s3://BUCKET"),
    _kind(
        r"DBSnapshotAlreadyExists",
        "a platform of this name was destroyed before; when its last snapshot is wanted no more: "
        "aws rds delete-db-snapshot --db-snapshot-identifier NAME-final",
    ),
    _kind(
        r"scheduled for deletion",
        "a platform of this name was destroyed with `protect: true`; for each of its secrets: "
        "aws secretsmanager delete-secret --force-delete-without-recovery --secret-id …",
    ),
    _kind(
        r"already ?exists|already ?owned ?by ?you|name is taken",
        "it is not this stack's: choose another `name`, or take it over: "
        "tidegate infra export DIR && cd DIR && pulumi import TYPE NAME ID",
    ),
    _kind(
        r"deletion ?protection|termination protection|BucketNotEmpty|RepositoryNotEmpty",
        "set `platform.protect: false`, then: tidegate infra up, and tidegate infra destroy",
    ),
)


def explain(said: str, stack: str, state: str) -> str:
    """The cause in what was said, with what to do about it."""
    lines = [line for line in said.splitlines() if "error" in line.lower()]
    cause = " ".join(" ".join(lines or [said]).split())[-MOST_CHARACTERS:]
    for kind in KINDS:
        if kind.pattern.search(said):
            who = "".join(re.findall(r"created by \S+ \(pid \d+\)", said)[:1])
            held = f" ({who})" if who and who not in cause else ""
            return f"{cause}{held}; {kind.remedy.format(stack=stack, state=state)}"
    return f"{cause}; see what would be done: tidegate infra plan"
