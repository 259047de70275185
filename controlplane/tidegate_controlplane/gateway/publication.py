"""How requests for one deployment are routed, as one control plane says it to the others."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.gateway.replica import Endpoint, ShownEndpoint


class Hopeless(BaseModel):
    """Why no replica will come."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    message: str
    code: str | None
    retry_after_s: float | None

    @classmethod
    def of(cls, refusal: Unavailable) -> Hopeless:
        return cls(message=refusal.message, code=refusal.code, retry_after_s=refusal.retry_after_s)

    @property
    def refusal(self) -> Unavailable:
        return Unavailable(self.message, code=self.code, retry_after_s=self.retry_after_s)


class Publication(BaseModel):
    """What the leader's reconciler told its own table, without the replicas' tokens.

    Whoever may ask a replica can make its token (`access.replica_token`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoints: list[ShownEndpoint] = []
    weights: dict[str, float] | None = None
    hopeless: Hopeless | None = None
    cold_start_s: float | None = None

    def endpoints_with(self, token_of: Callable[[str], str]) -> list[Endpoint]:
        return [each.with_token(token_of(each.replica_id)) for each in self.endpoints]


NOTHING_PUBLISHED = Publication()
