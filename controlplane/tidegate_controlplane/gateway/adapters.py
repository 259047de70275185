"""Bringing adapters to replicas: each is told of one when it is first asked for it.

So replicas serve what is declared, whenever they started and whoever added an adapter meanwhile,
and nothing has to be kept alike. A replica that was told already costs nothing.
"""

from __future__ import annotations

from tidegate.protocol.replica import AdapterRequest
from tidegate_controlplane.gateway.catalog import Adapter
from tidegate_controlplane.gateway.hop import OK, Question, Reply
from tidegate_controlplane.gateway.replica import Ask, Endpoint
from tidegate_controlplane.gateway.replica_client import ReplicaClient

PATH = "/adapters"


async def bring(
    client: ReplicaClient,
    endpoint: Endpoint,
    told: set[Adapter],
    adapter: Adapter | None,
    request_id: str,
) -> Reply | None:
    """Have a replica load an adapter, if any; `told` are those that it was told of.

    Returns what it answers instead: the answer to whoever asked for the adapter. Raises as
    `ReplicaClient.send` does.
    """
    if adapter is None or adapter in told:
        return None
    wanted = AdapterRequest(name=adapter.name, source=adapter.source)
    question = Question(PATH, wanted.model_dump_json().encode(), request_id, Ask(), whole=True)
    reply = await client.send(endpoint, question)
    if reply.status != OK:
        return reply
    reply.close()
    told.add(adapter)
    return None
