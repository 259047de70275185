"""The two clients are one surface, waited for or awaited."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tidegate import aio, client
from tidegate.aio import resources as aio_resources
from tidegate.aio.offers import AsyncOffers
from tidegate.aio.webhooks import AsyncWebhooks
from tidegate.client import resources
from tidegate.client.offers import Offers
from tidegate.client.webhooks import Webhooks

PAIRS = [
    (Offers, AsyncOffers),
    (Webhooks, AsyncWebhooks),
    *((getattr(client, name), getattr(aio, f"Async{name}")) for name in client.__all__),
    *(
        (getattr(resources, name), getattr(aio_resources, f"Async{name}"))
        for name in (
            "Batches",
            "Deployments",
            "Encryption",
            "Files",
            "Invocations",
            "Keys",
            "Models",
            "Rollouts",
        )
    ),
]
PROTOCOL = {
    "__iter__": "__aiter__",
    "__next__": "__anext__",
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "__init__": "__init__",
}


def _surface(kind: type) -> dict[str, Any]:
    members = {name: inspect.getattr_static(kind, name) for name in dir(kind)}
    return {name: m for name, m in members.items() if not name.startswith("_") or name in PROTOCOL}


def _words(annotation: Any) -> str:
    words = str(annotation).replace("Async", "").replace("tidegate.aio", "tidegate.client")
    return words.replace("Generator[T, None, None]", "Generator[T, None]")


def _signature(member: Any) -> list[tuple[str, Any, Any, str]]:
    target = member.fget if isinstance(member, property) else member
    signature = inspect.signature(target)
    parameters = [
        (p.name, p.kind, p.default, _words(p.annotation)) for p in signature.parameters.values()
    ]
    return [*parameters, ("return", None, None, _words(signature.return_annotation))]


@pytest.mark.parametrize(("waited", "awaited"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_twins_have_the_same_members_with_the_same_signatures(
    waited: type, awaited: type
) -> None:
    left, right = _surface(waited), _surface(awaited)
    for name, member in left.items():
        if inspect.isfunction(member) and name in PROTOCOL:
            twin = inspect.getattr_static(awaited, PROTOCOL[name])
        else:
            assert name in right, f"Async{waited.__name__} lacks {name}"
            twin = right[name]
        assert _signature(member) == _signature(twin), name
        assert isinstance(member, property) == isinstance(twin, property), name
    assert {n for n in right if not n.startswith("_")} == {n for n in left if n[0] != "_"}


def test_both_clients_hold_the_same_resources() -> None:
    waited = client.Client(url="http://x", api_key="k")
    awaited = aio.AsyncClient(url="http://x", api_key="k")
    kinds = {name: type(value).__name__ for name, value in vars(waited).items()}
    twins = {
        name: type(value).__name__.removeprefix("Async") for name, value in vars(awaited).items()
    }
    assert kinds == twins
    waited.close()
