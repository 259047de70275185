"""Runs a Pulumi program without an engine: nothing is created, every declaration is seen.

Uses Pulumi's own mocks. What the cloud would answer is made up, in the shape it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pulumi.runtime import mocks, settings
from pulumi.runtime.stack import run_pulumi_func

from tidegate_infra.policy.collect import Collector
from tidegate_infra.policy.declared import UNKNOWN, Declared


@dataclass(frozen=True)
class Account:
    """The account that is made up."""

    id: str = "123456789012"
    region: str = "eu-central-1"


def declared_by(
    program: Callable[[], object], account: Account = Account(), *, preview: bool = False
) -> list[Declared]:
    """Every custom resource that `program` declares, in order.

    As at a preview, when `preview` says so: what only the cloud can say is then unknown.

    Raises whatever the program raises. Settings of Pulumi's are global: one program at a time in
    a process, and none beside a real one.
    """
    collector = Collector()

    def watched() -> None:
        collector.start()
        program()

    async def run() -> list[Declared]:
        settings.reset_options()  # what a program before left half done is not ours
        cloud = _Cloud(account, knows=not preview)
        mocks.set_mocks(cloud, project="offline", stack="offline", preview=preview)
        await run_pulumi_func(watched)
        return await collector.resources()

    return _run(run())


def _run(main: Coroutine[Any, Any, list[Declared]]) -> list[Declared]:
    """Like asyncio.run, and closes the loops that Pulumi's mocks want in their threads."""
    loops: list[asyncio.AbstractEventLoop] = []

    def begin() -> None:
        loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(loops[-1])

    async def run() -> list[Declared]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4, initializer=begin))
        return await main

    try:
        return asyncio.run(run())
    finally:
        for loop in loops:
            loop.close()


ANSWERS: dict[str, Any] = {
    "address": "database.internal",
    "arnSuffix": "suffix",
    "dnsName": "balancer.internal",
    "keyId": "key",
    "latestVersion": 1,
    "prefixListId": "pl-s3",
    "repositoryUrl": "registry.internal/repository",
    "versionId": "version",
}
"""What only the cloud says of a resource; a resource takes from it what it has."""


ARNS = {
    "aws:iam/role:Role": "arn:aws:iam::{account}:role/{name}",
    "aws:kms/key:Key": "arn:aws:kms:{region}:{account}:key/{name}",
}
"""Type → how its ARN looks, where rights depend on it."""


class _Cloud(mocks.Mocks):
    """Gives back what it is given, with an ARN; before anything is made, there is none."""

    def __init__(self, account: Account, *, knows: bool) -> None:
        self._account, self._knows = account, knows

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        kind = args.typ.rsplit(":", 1)[-1]
        given = f"{kind[0].lower()}{kind[1:]}Name"
        name = args.inputs.get("name") or args.inputs.get(given) or args.name
        service = args.typ.split(":")[1].split("/")[0]
        shape = ARNS.get(args.typ, "arn:aws:{service}:{region}:{account}:{name}")
        arn = shape.format(
            service=service, region=self._account.region, account=self._account.id, name=name
        )
        made = {"name": name, given: name, "arn": arn, **ANSWERS}
        if not self._knows:
            made = dict.fromkeys(made, UNKNOWN)
        return f"{args.name}-id", {**made, **args.inputs}

    def call(self, _: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        return {
            "accountId": self._account.id,
            "region": self._account.region,
            "name": self._account.region,
            "partition": "aws",
        }, None
