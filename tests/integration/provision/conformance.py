"""What every provisioner does, as one suite of cases over a place.

A provisioner takes part by a subclass of `Place`, and a test module that inherits the cases:

    class TestRay(Conformance):
        place_type = RayPlace
        unproven = {"test_...": "why this case cannot be shown here"}

        @pytest.fixture
        async def place(self, ...) -> AsyncIterator[Place]:
            made = RayPlace(provisioner, ...)
            yield made
            await made.provisioner.close()

The replica of each launch is that of `replica.py`: the provisioner under test starts
`launch.COMMAND` where it would start the runtime. What was seen is kept in pytest's cache, from
which `python -m tests.integration.provision.table` writes docs/provisioners.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

import httpx
import pytest
from tests.integration.provision.place import Place, is_ready

from tidegate.protocol.resources import ReplicaPhase
from tidegate_controlplane.domain.replicas import Exited, Missing, NoCapacity, Observation, Running
from tidegate_controlplane.provision.base import Holding

P = ReplicaPhase
ORDER = [P.STARTING, P.LOADING, P.READY]


class Conformance:
    """The cases. `place` is a fixture of the subclass."""

    place_type: ClassVar[type[Place]]
    unproven: ClassVar[Mapping[str, str]] = {}
    """Cases that cannot be shown, each with the reason."""

    @pytest.fixture(autouse=True)
    def noted(
        self,
        request: pytest.FixtureRequest,
        record_property: Callable[[str, object], None],
    ) -> None:
        """For the table; and leave out what cannot be shown."""
        record_property("place", self.place_type.name)
        record_property("stands_on", self.place_type.stands_on)
        if reason := self.unproven.get(request.node.originalname):
            pytest.skip(reason)

    # --- starting ---

    async def test_a_started_replica_goes_through_its_phases_until_it_is_ready(
        self, place: Place
    ) -> None:
        await place.provisioner.start(place.launch())
        phases: list[ReplicaPhase] = []

        def is_done(seen: Observation) -> bool:
            if isinstance(seen, Running):
                phases.append(seen.phase)
            return is_ready(seen) or isinstance(seen, Exited | NoCapacity)

        assert is_ready(await place.until(is_done))
        assert phases == sorted(phases, key=ORDER.index)
        assert place.provisioner.known() == ["rep_1"]

    async def test_its_endpoint_answers_a_request_that_has_its_token(self, place: Place) -> None:
        endpoint = await place.served()
        answer = await place.ask(endpoint)
        assert (answer.status_code, answer.json()["replica_id"]) == (200, "rep_1")
        assert endpoint.capacity == place.launch().plan.max_sequences
        assert endpoint.token not in repr(endpoint)

    async def test_a_request_with_another_token_is_turned_away(self, place: Place) -> None:
        endpoint = await place.served()
        answer = await place.ask(replace(endpoint, token=f"{endpoint.token}x"))
        assert answer.status_code == 401

    async def test_each_of_several_replicas_answers_for_itself(self, place: Place) -> None:
        for key in ("rep_1", "rep_2"):
            await place.provisioner.start(place.launch(key=key))
        found = [await place.served(key=key) for key in ("rep_1", "rep_2")]
        for endpoint in found:
            said = await place.said(endpoint)
            assert said is not None
            assert said["replica_id"] == endpoint.replica_id
        assert sorted(place.provisioner.known()) == ["rep_1", "rep_2"]

    async def test_starting_again_changes_nothing(self, place: Place) -> None:
        await place.provisioner.start(place.launch())
        first = await place.served()
        await place.provisioner.start(place.launch())
        assert place.provisioner.endpoint("rep_1") == first
        assert is_ready(await place.seen())
        assert place.provisioner.known() == ["rep_1"]

    async def test_without_capacity_a_replica_says_so_and_another_starts_once_there_is(
        self, place: Place
    ) -> None:
        async with place.full():
            await place.provisioner.start(place.launch())
            seen = await place.until(lambda s: isinstance(s, NoCapacity))
            assert isinstance(seen, NoCapacity)
            assert seen.message
            await place.provisioner.kill("rep_1")
            await place.provisioner.forget("rep_1")
            assert place.provisioner.known() == []
        assert await place.served(key="rep_2")

    # --- ending ---

    async def test_a_drained_replica_ends_what_it_has_first(self, place: Place) -> None:
        endpoint = await place.served()
        running = asyncio.create_task(place.ask(endpoint, seconds=1.0))
        while not (await place.said(endpoint) or {}).get("in_flight"):
            await asyncio.sleep(0.01)
        for _ in range(2):
            await place.provisioner.drain("rep_1")
        await place.exited()
        assert (await running).json()["replica_id"] == "rep_1"
        assert not await place.said(endpoint)

    async def test_killing_ends_a_replica_at_once_even_one_that_does_not_drain(
        self, place: Place
    ) -> None:
        endpoint = await place.served("stubborn")
        await place.provisioner.drain("rep_1")
        for _ in range(2):
            await place.provisioner.kill("rep_1")
        await place.exited()
        assert not await place.said(endpoint)

    async def test_a_replica_that_is_killed_while_it_starts_does_not_stay(
        self, place: Place
    ) -> None:
        await place.provisioner.start(place.launch("slow"))
        await place.provisioner.kill("rep_1")
        await place.exited()

    async def test_only_what_has_ended_is_forgotten_and_its_log_stays(self, place: Place) -> None:
        await place.served()
        await place.provisioner.forget("rep_1")
        assert place.provisioner.known() == ["rep_1"]
        await place.provisioner.kill("rep_1")
        await place.exited()
        for _ in range(2):
            await place.provisioner.forget("rep_1")
        assert place.provisioner.known() == []
        assert await place.seen() == Missing()
        assert await place.texts()

    async def test_ending_all_leaves_none_and_more_may_be_started(self, place: Place) -> None:
        endpoint = await place.served("stubborn")
        await place.provisioner.end_all()
        assert not await place.said(endpoint)
        assert place.provisioner.known() == []
        assert await place.served(key="rep_2")

    async def test_closing_ends_every_replica_and_waits_for_it(self, place: Place) -> None:
        found = [await place.served("stubborn", key) for key in ("rep_1", "rep_2")]
        await place.provisioner.close()
        assert [await place.said(endpoint) for endpoint in found] == [None, None]

    # --- failing ---

    async def test_a_crash_is_told_with_what_the_log_said_last(self, place: Place) -> None:
        await place.provisioner.start(place.launch("crash"))
        seen = await place.exited()
        assert (seen.reason, seen.refused) == ("Crashed", False)
        assert "boom" in seen.message

    async def test_a_refusal_is_told_with_its_reason_and_as_final(self, place: Place) -> None:
        await place.provisioner.start(place.launch("refuse"))
        seen = await place.exited()
        assert (seen.reason, seen.message) == ("Pickled", "its weights are pickled")
        assert seen.refused

    async def test_a_ready_replica_that_ends_unasked_has_crashed(self, place: Place) -> None:
        endpoint = await place.served()
        with pytest.raises(httpx.HTTPError):
            (await place.ask(endpoint, crash=True)).raise_for_status()
        seen = await place.exited()
        assert (seen.reason, seen.refused) == ("Crashed", False)
        assert "it was told to crash" in seen.message

    async def test_a_replica_that_fails_its_health_checks_is_seen(self, place: Place) -> None:
        await place.provisioner.start(place.launch("sick"))
        await place.until(lambda seen: isinstance(seen, Running) and not seen.healthy)

    # --- logs ---

    async def test_a_log_is_read_on_from_an_offset(self, place: Place) -> None:
        await place.provisioner.start(place.launch("crash"))
        await place.exited()
        whole = await place.provisioner.logs("rep_1", 0, 100)
        assert [each.text for each in whole[:2]] == ["token of 43 characters", "Traceback: boom"]
        first = await place.provisioner.logs("rep_1", 0, 1)
        assert first == whole[:1]
        assert await place.provisioner.logs("rep_1", first[0].offset, 100) == whole[1:]
        assert await place.provisioner.logs("rep_1", whole[-1].offset, 10) == []
        assert {each.replica for each in whole} == {"rep_1"}

    async def test_the_logs_of_others_are_deleted(self, place: Place) -> None:
        for key in ("rep_1", "rep_2"):
            await place.provisioner.start(place.launch("crash", key))
            await place.exited(key)
        for _ in range(2):
            await place.provisioner.keep_files({"rep_2"})
        assert await place.texts() == []
        assert await place.texts("rep_2")

    # --- what nobody knows, and what a former control plane left ---

    async def test_calls_about_a_replica_it_does_not_know_are_no_errors(self, place: Place) -> None:
        provisioner = place.provisioner
        assert await place.seen() == Missing()
        for call in (provisioner.drain, provisioner.kill, provisioner.forget):
            await call("rep_1")
        assert provisioner.endpoint("rep_1") is None
        assert await provisioner.logs("rep_1", 0, 10) == []
        assert provisioner.known() == []
        await provisioner.keep_files(set())
        await provisioner.sweep([])

    async def test_a_new_control_plane_adopts_nothing_and_ends_what_the_former_one_left(
        self, place: Place
    ) -> None:
        endpoint = await place.served("stubborn")
        seen = await place.seen()
        assert isinstance(seen, Running)
        former = place.former("rep_1", seen)
        await place.crash()
        assert place.provisioner.known() == []
        assert await place.seen() == Missing()
        for _ in range(2):
            await place.provisioner.sweep([former])
        await place.gone(endpoint)
        assert await place.served(key="rep_2")

    async def test_what_is_held_for_a_deployment_is_taken_away_until_nothing_is_left(
        self, place: Place
    ) -> None:
        await place.served()
        await place.provisioner.kill("rep_1")
        await place.exited()
        await place.provisioner.forget("rep_1")
        for deployment in ("dep_1", "dep_1", "dep_unknown"):
            async with asyncio.timeout(place.patience_s):
                while await place.provisioner.remove(Holding(deployment, place.name)):
                    await asyncio.sleep(0.01)

    async def test_capacity_for_a_plan_that_fits_is_not_denied(self, place: Place) -> None:
        assert await place.provisioner.shortage(place.launch().plan) is None
