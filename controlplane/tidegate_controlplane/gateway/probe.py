"""Finding out that a replica has stopped answering, from the requests that wait for it.

A replica says nothing before the first token (decision 009), so silence alone is no fault: a long
prompt takes its time. While requests wait for their first byte the replica is therefore asked for
`GET /readyz` every second, which costs it nothing; one that does not answer that within a second
twice in a row, whatever the answer, is left out, and its waiting requests go elsewhere. That is at
most four seconds after the first of them. Once is no proof: on a busy machine a second passes while
the answer waits to be read. One that drains says so and is left alone: it finishes what it has.
Copies behind SageMaker have no address of their own; SageMaker leaves out those that hang.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import aiohttp

from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.gateway.replica import Endpoint, Replica, Slot
from tidegate_controlplane.gateway.replica_client import ReplicaClient

LOG = logging.getLogger("tidegate.gateway")
EVERY_S = 1.0
PATIENCE = aiohttp.ClientTimeout(total=1.0)
MISSES = 2
"""So many probes in a row without an answer, and a replica hangs."""


class Prober:
    """Asks replicas for a sign of life, as long as somebody waits for one."""

    def __init__(self, endpoints: Endpoints, client: ReplicaClient) -> None:
        self._endpoints = endpoints
        self._client = client
        self._watched: dict[Replica, int] = {}
        """How many probes in a row each has not answered."""
        self._probes: set[asyncio.Task[None]] = set()

    def watch(self, deployment_id: str, slot: Slot) -> None:
        """Ask its replica from now on until no request waits there for its first byte."""
        if slot.replica not in self._watched and self._client.can_be_probed(slot.endpoint):
            self._watched[slot.replica] = 0
            self._later(deployment_id, slot.replica)

    def _later(self, deployment_id: str, replica: Replica) -> None:
        asyncio.get_running_loop().call_later(EVERY_S, self._tick, deployment_id, replica)

    def _tick(self, deployment_id: str, replica: Replica) -> None:
        if replica.is_waited_for():
            probe = asyncio.create_task(self._probe(deployment_id, replica))
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)
        else:
            self._watched.pop(replica, None)

    async def _probe(self, deployment_id: str, replica: Replica) -> None:
        endpoint = replica.endpoint
        try:
            complaint = await self._complaint(endpoint)
            is_silent = complaint is not None and complaint.is_silence
            self._watched[replica] = self._watched[replica] + 1 if is_silent else 0
            if complaint and (not is_silent or self._watched[replica] >= MISSES):
                LOG.warning("replica %s gives no sign: %s", endpoint.replica_id, complaint.why)
                self._endpoints.stalled(deployment_id, replica, dead=complaint.dead)
        finally:
            self._later(deployment_id, replica)

    async def _complaint(self, endpoint: Endpoint) -> _Complaint | None:
        """What is wrong with a replica; None when it answers."""
        try:
            async with self._client.probe(endpoint, PATIENCE):
                return None
        except TimeoutError:
            why = f"{MISSES} probes in a row got no answer within {PATIENCE.total:g} s"
            return _Complaint(why, is_silence=True)
        except aiohttp.ClientConnectorError:
            return _Complaint("nobody listens there", dead=True)
        except aiohttp.ClientError as error:
            return _Complaint(f"its probe failed ({type(error).__name__})")


@dataclass(frozen=True)
class _Complaint:
    why: str
    dead: bool = False
    is_silence: bool = False
