"""Frames and refusals of SageMaker's runtime API, taken apart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.aws_double.frames import exception, frame, part

from tidegate.protocol.replica import Priority
from tidegate_controlplane.errors import DeadlinePassed
from tidegate_controlplane.gateway.hop import (
    AnswerBroken,
    Question,
    ReplicaFailed,
    ReplicaFull,
    ReplicaGone,
)
from tidegate_controlplane.gateway.replica import Ask
from tidegate_controlplane.gateway.sagemaker import Address, attributes
from tidegate_controlplane.gateway.sagemaker_refusal import understood
from tidegate_controlplane.gateway.sagemaker_stream import PartReader


class Pieces:
    """A connection that gives these bytes, a few at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._left = [data[at : at + size] for at in range(0, len(data), size)]

    async def readany(self) -> bytes:
        return self._left.pop(0) if self._left else b""


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
async def test_frames_cut_anywhere_give_the_same_bytes(size: int) -> None:
    data = part(b"data: 1\n\n") + frame({":message-type": "event", ":event-type": "New"}, b"?")
    reader = PartReader(Pieces(data + part(b"x" * 3000), size))
    assert await reader.read(4) == b"data"
    assert await reader.read() == b": 1\n\n" + b"x" * 3000


async def test_what_came_before_a_fault_is_passed_on_first() -> None:
    broken = json.dumps({"ErrorCode": "StreamBroken", "Message": "m"}).encode()
    reader = PartReader(Pieces(part(b"a") + exception("ModelStreamError", broken), 10_000))
    assert await reader.readany() == b"a"
    with pytest.raises(AnswerBroken, match="ModelStreamError"):
        await reader.readany()


async def test_a_stream_past_the_limit_says_so() -> None:
    late = json.dumps({"ErrorCode": "ModelInvocationTimeExceeded"}).encode()
    with pytest.raises(DeadlinePassed, match="8 minutes; ask for fewer tokens"):
        await PartReader(Pieces(exception("ModelStreamError", late), 10_000)).readany()


@pytest.mark.parametrize("spoilt", [lambda data: data[:-3], lambda data: data[:-1] + b"!"])
async def test_a_frame_that_is_cut_or_damaged_is_never_an_end(spoilt: Any) -> None:
    with pytest.raises(AnswerBroken):
        await PartReader(Pieces(spoilt(part(b"abc")), 10_000)).read()


def test_an_address_survives_being_written() -> None:
    address = Address("eu-west-1", "tidegate-smol", "tidegate-smol-1")
    assert Address.parse(address.url) == address


def test_a_separator_in_a_request_id_does_not_become_another_attribute() -> None:
    question = Question("/v1/embeddings", b"", "a;path=/x", Ask("prj", Priority.BATCH), whole=True)
    assert attributes(question) == (
        "path=/v1/embeddings;project=prj;priority=2;request_id=a%3Bpath%3D/x"
    )


@pytest.mark.parametrize(
    ("status", "kind", "message", "meaning"),
    [
        (
            400,
            "ValidationError",
            "Inference Component has no capacity to process this",
            ReplicaFull,
        ),
        (429, "ModelNotReadyException", "loading", ReplicaFull),
        (400, "ThrottlingException", "Rate exceeded", ReplicaFull),
        (503, "ServiceUnavailable", "later", ReplicaFull),
        (400, "ValidationError", "Endpoint e of account 1 not found.", ReplicaGone),
        (403, "AccessDeniedException", "no", ReplicaFailed),
        (500, "InternalFailure", "oh", ReplicaFailed),
        (413, "", "too large", ReplicaFailed),
    ],
)
def test_a_refusal_is_what_the_gateway_can_do_about_it(
    status: int, kind: str, message: str, meaning: type[Exception]
) -> None:
    for said in ({"Message": message}, {"message": message, "__type": f"aws#{kind}"}):
        with pytest.raises(meaning) as raised:
            understood(status, kind if "Message" in said else "", json.dumps(said).encode())
        assert type(raised.value) is meaning


async def test_a_model_error_without_its_text_still_has_its_status() -> None:
    said = {"OriginalStatusCode": 422, "Message": "and could not load the entire response body"}
    own = understood(424, "ModelError", json.dumps(said).encode())
    assert own.status == 422
    assert json.loads(await own.content.read())["error"]["type"] == "invalid_request_error"


def test_a_refusal_in_no_known_shape_is_no_crash() -> None:
    with pytest.raises(ReplicaFailed, match="SageMaker answered 502"):
        understood(502, "", b"<html>")
