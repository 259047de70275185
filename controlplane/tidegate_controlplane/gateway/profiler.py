"""Having one replica record where its steps go."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from tidegate.protocol.profile import (
    MAX_PROFILE_BYTES,
    DeploymentProfileRequest,
    ProfileRequest,
)
from tidegate_controlplane.errors import (
    BadRequest,
    Conflict,
    DeadlinePassed,
    NotFound,
    Refused,
    UpstreamFailed,
)
from tidegate_controlplane.gateway.catalog import Catalog, Served
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.gateway.hop import BROKEN, OK, Content, Question, ReplicaFailed
from tidegate_controlplane.gateway.replica import Ask, Endpoint
from tidegate_controlplane.gateway.replica_client import ReplicaClient
from tidegate_controlplane.gateway.sagemaker import is_sagemaker

PATH = "/profile"
TELLING_S = 60.0
"""What a replica is given to make a trace of what it recorded."""
_REFUSALS: dict[int, type[Refused]] = {400: BadRequest, 409: Conflict}


@dataclass(frozen=True)
class Profiler:
    """Asks a replica past its slots: a profile takes no place of a request."""

    catalog: Catalog
    endpoints: Endpoints
    client: ReplicaClient

    async def profile(
        self, project_id: str, name: str, wanted: DeploymentProfileRequest, request_id: str
    ) -> bytes:
        """The JSON of an `EngineProfile`, as the replica made it.

        Raises NotFound, Conflict when there is nothing to record or another profile is running,
        BadRequest for a model without steps, UpstreamFailed, DeadlinePassed.
        """
        served = self.catalog.get(project_id, name)
        if served is None:
            raise NotFound(f"there is no deployment {name!r}; `tidegate ls` shows those there are")
        endpoint = self._chosen(served, wanted.replica)
        asked = ProfileRequest(seconds=wanted.seconds).model_dump_json().encode()
        question = Question(PATH, asked, request_id, Ask(project_id), whole=True)
        try:
            async with asyncio.timeout(wanted.seconds + TELLING_S):
                status, said = await self._ask(endpoint, question)
        except TimeoutError:
            raise DeadlinePassed(
                f"{endpoint.replica_id} made no profile of {wanted.seconds:g} s within "
                f"{wanted.seconds + TELLING_S:g} s; profile fewer seconds"
            ) from None
        except (ReplicaFailed, *BROKEN) as error:
            raise UpstreamFailed(
                f"{endpoint.replica_id} ended before its profile did ({error}); try again"
            ) from error
        if status != OK:
            raise _refusal(endpoint, status, said)
        return said

    def _chosen(self, served: Served, replica_id: str | None) -> Endpoint:
        """The replica with that id, or the one with the most requests that can be reached."""
        ready = self.endpoints.ready(served.deployment_id)
        if not ready:
            raise Conflict(
                f"{served.name!r} has no ready replica to profile; `tidegate wake {served.name}` "
                "starts one",
                code="no_ready_replica",
            )
        meant = [each for each in ready if replica_id in (None, each.replica_id)]
        if not meant:
            known = ", ".join(sorted(each.replica_id for each in ready))
            raise NotFound(
                f"{served.name!r} has no ready replica {replica_id!r}; ready are: {known}",
                param="replica",
            )
        reached = [each for each in meant if not is_sagemaker(each.url)]
        if not reached:
            raise Conflict(
                f"{meant[0].replica_id} runs behind SageMaker, which passes on inference requests "
                "only; profile the model on a place of your own",
                code="replica_not_reached",
            )
        return max(
            reached,
            key=lambda each: self.endpoints.in_flight_on(served.deployment_id, each.replica_id),
        )

    async def _ask(self, endpoint: Endpoint, question: Question) -> tuple[int, bytes]:
        reply = await self.client.send(endpoint, question)
        try:
            return reply.status, await _bounded(reply.content)
        finally:
            reply.close()


async def _bounded(content: Content) -> bytes:
    said = bytearray()
    while piece := await content.readany():
        said += piece
        if len(said) > MAX_PROFILE_BYTES:
            raise UpstreamFailed(
                f"the profile is larger than {MAX_PROFILE_BYTES} bytes; profile fewer seconds"
            )
    return bytes(said)


def _refusal(endpoint: Endpoint, status: int, said: bytes) -> Refused:
    """What the replica refused, in its words."""
    try:
        error = json.loads(said)["error"]
        message, code = str(error["message"]), error["code"]
    except (ValueError, LookupError, TypeError):
        message, code = f"{endpoint.replica_id} answered {status}", None
    return _REFUSALS.get(status, UpstreamFailed)(message, code=code)
