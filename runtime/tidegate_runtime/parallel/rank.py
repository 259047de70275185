"""One rank other than 0: it runs what rank 0 runs, and decides nothing."""

from __future__ import annotations

from multiprocessing.connection import Connection

from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import Decoder, StepBatch
from tidegate_runtime.models.open import device_of, open_decoder
from tidegate_runtime.parallel.group import join
from tidegate_runtime.parallel.orders import Allocate, End, Open, Opened, Refused


def follow(connection: Connection) -> None:
    """Carry out orders until rank 0 says the end or is gone. Raises EngineDead when another rank is
    gone within a step.
    """
    decoder: Decoder | None = None
    while (order := _next(connection)) is not None:
        if isinstance(order, Open):
            decoder = _answer(connection, order)
        elif decoder is None:
            raise RuntimeError(f"{type(order).__name__} came before the model was opened")
        elif isinstance(order, Allocate):
            decoder.allocate(order.blocks)
        elif isinstance(order, StepBatch):
            decoder.forward(order)


def open_part(order: Open) -> Decoder:
    """Take one rank's part of a model. Blocks until all ranks do the same.

    Raises ModelRefused, and EngineDead when another rank is gone.
    """
    whole = order.whole
    device = device_of(whole.kind, order.rank)
    return open_decoder(
        whole.artifact_dir,
        threads=whole.threads,
        kv=whole.kv,
        context_tokens=whole.context_tokens,
        kind=whole.kind,
        group=join(order.rendezvous, order.rank, order.ranks, device),
    )


def _answer(connection: Connection, order: Open) -> Decoder | None:
    try:
        decoder = open_part(order)
    except ModelRefused as error:
        connection.send(Refused(error.reason, error.message))
        return None
    connection.send(Opened())
    return decoder


def _next(connection: Connection) -> object | None:
    try:
        order: object = connection.recv()
    except (EOFError, ConnectionResetError):
        return None
    return None if isinstance(order, End) else order
