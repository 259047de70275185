"""A profile of a replica's engine: where a step goes, for a while.

`POST /profile` of a replica takes `ProfileRequest`, `POST /api/v1/deployments/{name}/profile`
takes `DeploymentProfileRequest`; both answer with `EngineProfile`.
"""

from __future__ import annotations

from base64 import b64decode

from pydantic import Field

from tidegate.protocol.wire import Answer, WireModel

MAX_PROFILE_S = 60
MAX_PROFILE_BYTES = 64 * 1024**2
"""Of the answer with its trace."""


class ProfileRequest(WireModel):
    """How long to record."""

    seconds: float = Field(default=10.0, gt=0, le=MAX_PROFILE_S)


class DeploymentProfileRequest(ProfileRequest):
    """Which replica to record, and how long."""

    replica: str | None = Field(
        default=None, max_length=128, description="its id; the busiest ready one when null"
    )


class PhaseTimes(Answer):
    """What the engine's thread spent in one phase."""

    phase: str
    share: float = Field(description="of the recorded time; 1 is all of it")
    count: int = Field(description="how often it was entered")
    mean_s: float
    p50_s: float
    p99_s: float


class ProfileSummary(Answer):
    """Where a step goes. The phases follow each other, so their shares make 1."""

    replica_id: str
    seconds: float = Field(description="of which this tells")
    steps: int = Field(description="in those seconds")
    operator_steps: int = Field(
        description="the first steps, whose operators are in the trace too; as that slows them, "
        "this tells of those after them, if there were any"
    )
    rows_per_step: float = Field(description="sequences in a step, on average")
    tokens_per_step: float = Field(description="tokens that a step ran, on average")
    phases: list[PhaseTimes]


class EngineProfile(Answer):
    """A summary and the trace behind it."""

    summary: ProfileSummary
    trace: str = Field(description="base64 of gzip of a Chrome trace in JSON, which Perfetto opens")

    @property
    def trace_gzip(self) -> bytes:
        """The trace as a `.json.gz` file holds it."""
        return b64decode(self.trace)
