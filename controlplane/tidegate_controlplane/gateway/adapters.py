"""Bringing adapters to replicas: each is told of one when it is first asked for it.

So replicas serve what is declared, whenever they started and whoever added an adapter meanwhile,
and nothing has to be kept alike. A replica that was told already costs nothing.
"""

from __future__ import annotations

from tidegate.protocol.replica import AdapterRequest
from tidegate_controlplane.gateway.catalog import Adapter
from tidegate_controlplane.gateway.hop import OK, Question, Reply
from tidegate_controlplane.gateway.replica import Ask, Replica
from tidegate_controlplane.gateway.replica_client import ReplicaClient

PATH = "/adapters"


async def bring(
    client: ReplicaClient, replica: Replica, adapter: Adapter | None, request_id: str
) -> Reply | None:
    """Have a replica load an adapter, if any.

    Returns what it answers instead: the answer to whoever asked for the adapter. Raises as
    `ReplicaClient.send` does.
    """
    if adapter is None or adapter in replica.adapters:
        return None
    wanted = AdapterRequest(name=adapter.name, source=adapter.source)
    question = Question(PATH, wanted.model_dump_json().encode(), request_id, Ask(), whole=True)
    reply = await client.send(replica.endpoint, question)
    if reply.status != OK:
        return reply
    reply.close()
    replica.adapters.add(adapter)
    return None
