"""The client that waits. `tidegate.aio` is its awaited twin, file by file."""

from tidegate.client.client import Client
from tidegate.client.deployment import Deployment
from tidegate.client.model import ServedModel
from tidegate.client.stream import Stream
from tidegate.client.work import Batch, Invocation, TableBatch

__all__ = ["Batch", "Client", "Deployment", "Invocation", "ServedModel", "Stream", "TableBatch"]
