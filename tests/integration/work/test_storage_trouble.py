"""Storage that is away for a while, while requests run: they wait, and no attempt is lost."""

from __future__ import annotations

from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.objects.base import StoreUnavailable

TIMES = 5
"""More often than a request may fail."""


class Away:
    """A store whose calls of one kind fail some times; the others reach the real one."""

    def __init__(self, store, kind, error, when=lambda *_: True, times=TIMES):
        self.store, self.kind, self.error = store, kind, error
        self.when, self.left = when, times

    def __getattr__(self, name):
        real = getattr(self.store, name)
        if name != self.kind:
            return real

        async def call(*arguments):
            if self.left and self.when(*arguments):
                self.left -= 1
                raise self.error
            return await real(*arguments)

        return call


async def finished(house, kit, **changes):
    """A request with a large body, as it ended and what it gave."""
    await house.deploy()
    async with house.working(**changes) as work:
        invocation_id = await house.submit(work, "x" * 5000)
        found = await house.finished(work, invocation_id)
        return found, await work.invocations.result(kit.principal, invocation_id)


async def test_an_object_store_that_cannot_be_read_costs_no_attempt(house, kit):
    objects = Away(house.objects, "read", StoreUnavailable("away"))
    found, _ = await finished(house, kit, objects=objects)
    assert (found.status, found.attempt, objects.left) == ("succeeded", 1, 0)


async def test_an_object_store_that_takes_no_result_costs_no_attempt(house, kit):
    objects = Away(
        house.objects, "put", StoreUnavailable("away"), lambda key, *_: "/results/" in key
    )
    found, _ = await finished(house, kit, objects=objects)
    assert (found.status, found.attempt, objects.left) == ("succeeded", 1, 0)


async def test_an_answer_waits_until_the_database_can_be_written(house, kit):
    answered = []

    async def answer(prompt):
        answered.append(prompt)
        return kit.said("once")

    house.replicas.behaviour = answer
    db = Away(house.db, "write", Unavailable("full"), lambda _: bool(answered), times=1)
    found, result = await finished(house, kit, db=db)
    assert (found.status, found.attempt, len(answered)) == ("succeeded", 1, 1)
    assert b"once" in result
