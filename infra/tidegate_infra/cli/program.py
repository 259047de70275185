"""The Pulumi program of a file."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from tidegate.protocol.api_keys import ADMIN_KEY_VARIABLE, read_secret
from tidegate_infra.cli.file import InfraFile, given
from tidegate_infra.cli.wiring import wires
from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs
from tidegate_infra.components.inference_endpoint.endpoint import InferenceEndpoint
from tidegate_infra.components.platform.args import PlatformArgs
from tidegate_infra.components.platform.platform import Platform
from tidegate_infra.errors import StackFailed
from tidegate_infra.policy.rails import GuardRails

PASSWORD = re.compile(r"^[A-Za-z0-9]{16,}$")
PEPPER_BYTES = 32
OUTPUTS = {
    "url": "url",
    "artifactsUrl": "artifacts_url",
    "controlPlaneRepositoryUrl": "control_plane_repository_url",
    "runtimeRepositoryUrl": "runtime_repository_url",
    "stateUrl": "state_url",
}
"""What `up` says of a platform in the end, and which attribute of it that is."""


@dataclass(frozen=True, repr=False)
class Secrets:
    """What a platform is made with and no file holds."""

    database_password: str = ""
    pepper: str = ""
    admin_key: str = ""

    @classmethod
    def of(cls, file: InfraFile, environment: Mapping[str, str]) -> Secrets:
        """From the environment. Raises StackFailed with the command that makes a missing one."""
        if file.platform is None:
            return cls()
        password = environment.get("TIDEGATE_DATABASE_PASSWORD", "")
        pepper = environment.get("TIDEGATE_PEPPER", "")
        admin_key = environment.get(ADMIN_KEY_VARIABLE, "")
        if not PASSWORD.match(password):
            raise StackFailed(
                "TIDEGATE_DATABASE_PASSWORD: must be 16 letters and digits or more; keep it: "
                "export TIDEGATE_DATABASE_PASSWORD=$(openssl rand -hex 24)"
            )
        if not _is_pepper(pepper):
            raise StackFailed(
                "TIDEGATE_PEPPER: must be 32 random bytes as base64, and without it no API key "
                "works again; keep it: export TIDEGATE_PEPPER=$(openssl rand -base64 32)"
            )
        if read_secret(admin_key) is None:
            raise StackFailed(
                f"{ADMIN_KEY_VARIABLE}: must be an API key, the first of the platform; keep it: "
                f"export {ADMIN_KEY_VARIABLE}=$(tidegate keys new)"
            )
        return cls(password, pepper, admin_key)


def _is_pepper(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == PEPPER_BYTES
    except binascii.Error:
        return False


def rails_of(file: InfraFile) -> GuardRails:
    """What is held against the file: public is only what it says is public."""
    return GuardRails(public=is_public(file))


def is_public(file: InfraFile) -> bool:
    """Whether the platform's load balancer faces the internet."""
    return file.platform is not None and given(file.platform).get("internal") is False


def declare(file: InfraFile, secrets: Secrets = Secrets()) -> None:
    """Every resource of the file. Runs as a Pulumi program, or in one."""
    told = given(file.platform) if file.platform else {}
    beside: tuple[PlatformArgs, Platform] | None = None
    if file.platform is not None:
        args = PlatformArgs(
            region=file.region,
            database_password=pulumi.Output.secret(secrets.database_password),
            pepper=pulumi.Output.secret(secrets.pepper),
            admin_key=pulumi.Output.secret(secrets.admin_key),
            **told,
        )
        beside = args, Platform(args.name, args)
        for name, attribute in OUTPUTS.items():
            pulumi.export(name, getattr(beside[1], attribute))
    for section in file.endpoints:
        said = given(section)
        if beside:
            for wire in wires(said["mode"], said):
                said[wire.field] = wire.value(*beside, said["name"])
        InferenceEndpoint(said["name"], InferenceEndpointArgs(**said))
