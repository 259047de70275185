"""What control planes of one platform must have in common."""

from __future__ import annotations

import ipaddress
import platform
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tidegate_controlplane.access.pepper import fingerprint
from tidegate_controlplane.settings import Settings

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Place(BaseModel):
    """Where a control plane is, and where it keeps things."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    machine: str
    objects: str
    pepper: str
    """Its fingerprint."""
    seals: bool
    """Whether it encrypts what it stores."""
    replica_host: str
    """Where its replicas listen, if it leads."""

    @classmethod
    def of(cls, settings: Settings, pepper: bytes) -> Place:
        machine = _machine()
        own = f"{settings.objects_dir} on {machine}"
        return cls(
            machine=machine,
            objects=settings.objects or own,
            pepper=fingerprint(pepper),
            seals=bool(settings.encryption.keys),
            replica_host=settings.replica_host,
        )

    def disagreement(self, other: Place, pepper_path: Path) -> str | None:
        """Why the two cannot serve one platform, and what to do; None when they can."""
        if self.objects != other.objects:
            return (
                f"it keeps objects in {other.objects}, this one in {self.objects}; "
                "start every control plane with the same --objects s3://bucket/prefix"
            )
        if self.pepper != other.pepper:
            return (
                f"it has another pepper; copy the file {pepper_path.name} of its --data directory "
                f"to {pepper_path}"
            )
        if self.seals != other.seals:
            return (
                "one of the two encrypts what it stores, the other does not; start every control "
                "plane with the same encryption.keys"
            )
        if self.machine != other.machine and _is_loopback(other.replica_host):
            return (
                f"it is on {other.machine}, and its replicas listen on {other.replica_host}, which "
                "only that machine reaches; start every control plane with --replica-host and an "
                "address that the others reach"
            )
        return None


def _machine() -> str:
    """This machine, or the container that has its own loopback."""
    with suppress(OSError):
        return f"{platform.node()}/{BOOT_ID.read_text().strip()}"
    return platform.node()


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
