"""`tidegate-infra.yaml`: what somebody who never wants to see Pulumi writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import Field, ValidationError

from tidegate.spec import Mode, SpecIssue
from tidegate.spec.declaration import Declaration
from tidegate.spec.errors import SpecError, explain
from tidegate.spec.text import load
from tidegate_infra.cli.section import section_of
from tidegate_infra.cli.wiring import FIELDS, wires
from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs
from tidegate_infra.components.platform.args import REGION, PlatformArgs
from tidegate_infra.errors import FileRefused, InvalidArguments

FROM_PLATFORM = {each.name for each in fields(InferenceEndpointArgs) if each.default is MISSING} & {
    *FIELDS
}
"""What an endpoint must say when no platform stands beside it."""
SECRETS = ("database_password", "pepper", "admin_key")
"""Arguments of a platform that no file holds."""

if TYPE_CHECKING:
    PlatformSection: TypeAlias = Declaration
    EndpointSection: TypeAlias = Declaration
else:
    PlatformSection = section_of(PlatformArgs, without=("region", *SECRETS))
    EndpointSection = section_of(InferenceEndpointArgs, optional=FIELDS)


class InfraFile(Declaration):
    """The whole of the file. Paths in it are relative to the file."""

    stack: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    """up to 63 lower-case letters, digits and hyphens, a letter first"""
    region: str
    """Of AWS's own partition, such as us-west-2."""
    state: Annotated[str, Field(min_length=1)]
    """`s3://bucket/prefix`, or a directory: where it is kept what has been made."""
    kms_key: str | None = None
    """Seals the secrets in the state: an ARN, id or `alias/…`. A passphrase does when absent."""
    platform: PlatformSection | None = None
    endpoints: tuple[EndpointSection, ...] = ()


def given(section: Declaration) -> dict[str, Any]:
    """The fields that the file says, and no default."""
    said = {key: getattr(section, key) for key in type(section).model_fields}
    return {k: v for k, v in said.items() if k in section.model_fields_set and v is not None}


def read(path: Path) -> InfraFile:
    """Raises FileRefused naming the file and each fault in it."""
    try:
        written = load(path.read_text())
        file = InfraFile.model_validate_json(json.dumps(written, default=str), strict=True)
    except (OSError, UnicodeDecodeError) as error:
        said = f"cannot be read ({error}); name another with --file"
        raise FileRefused(path, [SpecIssue("", None, said)]) from None
    except SpecError as error:
        raise FileRefused(path, error.issues) from None
    except ValidationError as error:
        raise FileRefused(path, explain(error, InfraFile).issues) from None
    if issues := [*_issues(file)]:
        raise FileRefused(path, issues)
    return file


def _issues(file: InfraFile) -> Iterator[SpecIssue]:
    """What the components would refuse."""
    if not REGION.match(file.region):
        yield SpecIssue("region", file.region, "must be of AWS's own partition, such as us-west-2")
        return
    if file.platform is None and not file.endpoints:
        yield SpecIssue("endpoints", [], "name one, or a platform; there is nothing to make")
    names = Counter(given(each)["name"] for each in file.endpoints)
    for name in (name for name, number in names.items() if number > 1):
        yield SpecIssue("endpoints", name, "give each a name of its own")
    if file.platform is not None:
        told = {**given(file.platform), "region": file.region, **dict.fromkeys(SECRETS, "-")}
        yield from _refused(PlatformArgs, told, "platform.")
    for at, section in enumerate(file.endpoints):
        yield from _endpoint_issues(file.platform, given(section), f"endpoints.{at}.")


def _endpoint_issues(
    platform: Declaration | None, told: dict[str, Any], where: str
) -> Iterator[SpecIssue]:
    later = {wire.field: wire.stands_in for wire in wires(told["mode"], told)}
    if platform is None:
        lacking, remedy = FROM_PLATFORM & later.keys(), "there is no platform to take it from"
    else:
        yield from _beside(given(platform), told, where)
        open_image = later.keys() & {"image"} and not given(platform).get("runtime_image")
        lacking, remedy = {"image"} if open_image else set(), "or set platform.runtime_image"
        told = later | told
    for field in sorted(lacking):
        yield SpecIssue(f"{where}{field}", None, f"this field is required; {remedy}")
    if not lacking:
        yield from _refused(InferenceEndpointArgs, told, where)


def _beside(platform: dict[str, Any], told: dict[str, Any], where: str) -> Iterator[SpecIssue]:
    """What the platform's roles and network demand of an endpoint in it."""
    prefix = f"{platform['name']}-"
    if not told["name"].startswith(prefix):
        said = f"must begin with {prefix!r}: the roles of the platform end at its name"
        yield SpecIssue(f"{where}name", told["name"], said)
    if told["mode"] is Mode.BATCH and platform.get("batch_hosts") is False:
        said = "must be true for an endpoint of mode batch, whose hosts stand in its network"
        yield SpecIssue("platform.batch_hosts", platform["batch_hosts"], said)


def _refused(args: type, told: dict[str, Any], where: str) -> Iterator[SpecIssue]:
    try:
        args(**told)
    except InvalidArguments as error:
        for issue in error.issues:
            yield replace(issue, field=where + issue.field)
