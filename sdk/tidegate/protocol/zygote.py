"""The contract between a provisioner and the zygote of its machine.

A zygote is a process that has imported what a replica needs and forks replicas on request. It is
started as `python -m tidegate_runtime.zygote --socket N --parent-pid P`, where N is its end of a
pair of sockets (AF_UNIX, SOCK_SEQPACKET: one message a packet, here one JSON object). It sends
`Imported` when it can fork, answers each `Fork` with `Forked` and each `Warm` with `Warmed`, and
ends when the other end is closed.

A forked replica is a child of the *provisioner's* process, not of the zygote: the zygote forks
twice and lets the kernel give the orphan to its nearest subreaper (prctl(2)), which the provisioner
declares itself to be. So a replica lives on when its zygote dies, and its exit status is known.

It begins after `Forked` was sent, and ends without having begun when its zygote dies before. So who
is not answered may ask another zygote: there is no second process of that replica.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

MESSAGE_BYTES = 64 * 1024
"""At most, of one message."""


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def packet(self) -> bytes:
        """What is sent."""
        return self.model_dump_json().encode()


class Fork(Message):
    """Fork a replica of a `ReplicaConfig` file, its output appended to `log_path`."""

    kind: Literal["fork"] = "fork"
    request: int
    config_path: str
    log_path: str
    token: str = Field(repr=False)


class Warm(Message):
    """Keep ready what replicas of this `ReplicaConfig` file will read first."""

    kind: Literal["warm"] = "warm"
    config_path: str


class Warmed(Message):
    """A `Warm` was carried out and did no harm, whether or not there was anything to keep."""

    kind: Literal["warmed"] = "warmed"
    config_path: str


class Imported(Message):
    """The zygote can fork now."""

    kind: Literal["imported"] = "imported"


class Forked(Message):
    """The replica's process, or why there is none."""

    kind: Literal["forked"] = "forked"
    request: int
    pid: int | None = None
    errno: int | None = None
    error: str | None = None


Command: TypeAdapter[Fork | Warm] = TypeAdapter(Annotated[Fork | Warm, Field(discriminator="kind")])
Reply: TypeAdapter[Imported | Forked | Warmed] = TypeAdapter(
    Annotated[Imported | Forked | Warmed, Field(discriminator="kind")]
)
