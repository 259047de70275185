"""One rank other than 0: it runs what rank 0 runs, and decides nothing."""

from __future__ import annotations

from multiprocessing.connection import Connection

import torch

from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import LayeredDecoder, StepBatch
from tidegate_runtime.models.open import device_of, open_decoder
from tidegate_runtime.parallel.adapters import RankAdapters
from tidegate_runtime.parallel.group import join
from tidegate_runtime.parallel.orders import (
    AdaptedBatch,
    Allocate,
    DropAdapter,
    Embed,
    End,
    Open,
    Opened,
    Refused,
    Shallow,
    TakeAdapter,
)


def follow(connection: Connection) -> None:
    """Carry out orders until rank 0 says the end or is gone. Raises EngineDead when another rank is
    gone within a step.
    """
    opened: tuple[LayeredDecoder, RankAdapters] | None = None
    while (order := _next(connection)) is not None:
        if isinstance(order, Open):
            opened = _answer(connection, order)
        elif opened is None:
            raise RuntimeError(f"{type(order).__name__} came before the model was opened")
        else:
            _obey(order, *opened)


def _obey(order: object, decoder: LayeredDecoder, adapters: RankAdapters) -> None:
    match order:
        case StepBatch() | AdaptedBatch():
            decoder.forward(adapters.batch(order))
        case Shallow(step, layers, logits):
            run = decoder.early if logits else decoder.hidden
            run(adapters.batch(step), layers)
        case Embed(tokens):
            decoder.embed(torch.from_numpy(tokens))
        case TakeAdapter():
            adapters.take(order)
        case DropAdapter(number):
            adapters.drop(number)
        case Allocate(blocks):
            decoder.allocate(blocks)


def open_part(order: Open) -> LayeredDecoder:
    """Take one rank's part of a model. Blocks until all ranks do the same.

    Raises ModelRefused, and EngineDead when another rank is gone.
    """
    whole = order.whole
    device = device_of(whole.kind, order.rank)
    decoder = open_decoder(
        whole.artifact_dir,
        threads=whole.threads,
        kv=whole.kv,
        context_tokens=whole.context_tokens,
        kind=whole.kind,
        group=join(order.rendezvous, order.rank, order.ranks, device),
    )
    assert isinstance(decoder, LayeredDecoder)
    return decoder


def _answer(connection: Connection, order: Open) -> tuple[LayeredDecoder, RankAdapters] | None:
    try:
        decoder = open_part(order)
    except ModelRefused as error:
        connection.send(Refused(error.reason, error.message))
        return None
    connection.send(Opened())
    return decoder, RankAdapters(decoder, connection.send)


def _next(connection: Connection) -> object | None:
    try:
        order: object = connection.recv()
    except (EOFError, ConnectionResetError):
        return None
    return None if isinstance(order, End) else order
