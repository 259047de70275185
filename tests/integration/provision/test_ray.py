"""Replicas on a real Ray cluster: what every provisioner does, and what a cluster adds.

A start takes seconds here, so that only what is shown nowhere else is in the short run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from tests.integration.provision.conformance import Conformance
from tests.integration.provision.ray_cluster import Machines, RayPlace, machines, opened
from tests.tiny_heads import digest_of, write_tiny_heads
from tests.tiny_model import write_tiny_model

from tidegate.local.model_files import local_digest
from tidegate.protocol.resources import PlannedDraft, PlannedHeads
from tidegate.spec import GpuSpec, SpeculationSpec
from tidegate_controlplane.domain.replicas import Exited, NoCapacity
from tidegate_controlplane.provision.base import Launch, StartFailed
from tidegate_controlplane.provision.ray.agent import DIRECTORY_VARIABLE

pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with machines(tmp_path_factory.mktemp("cluster"), "a", "b", num_gpus=2) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(cluster: Machines) -> AsyncIterator[RayPlace]:
    made = RayPlace(await opened(cluster), cluster)
    yield made
    await made.provisioner.close()


@pytest_asyncio.fixture(loop_scope="module")
async def place(shared: RayPlace) -> AsyncIterator[RayPlace]:
    yield shared
    await shared.clean()


@pytest.mark.soak
class TestRay(Conformance):
    """What every provisioner does."""

    place_type = RayPlace


def planned(launch: Launch, **plan: Any) -> Launch:
    return replace(launch, plan=launch.plan.model_copy(update=plan))


def config_of(place: RayPlace, key: str) -> dict[str, Any]:
    """What the replica was told, on the node where it runs."""
    home = place.machines.directory(place.machines.home(key))
    told: dict[str, Any] = json.loads((home / "replicas" / key / "config.json").read_text())
    return told


def pid_of(place: RayPlace, key: str) -> int:
    home = place.machines.directory(place.machines.home(key))
    return int(json.loads((home / "replicas" / key / "status.json").read_text())["pid"])


# --- where replicas run ---


@pytest.mark.soak
async def test_two_replicas_that_fill_a_node_run_on_two(place: RayPlace) -> None:
    for key in ("rep_1", "rep_2"):
        await place.provisioner.start(place.launch(key=key))
    found = [await place.served(key=key) for key in ("rep_1", "rep_2")]
    assert {place.machines.home(each.replica_id) for each in found} == {"a", "b"}
    seen = await place.seen()
    assert str(seen.where).startswith("node ")
    address = str(seen.where).removeprefix("node ")
    assert found[0].url.startswith(f"http://{address}:")


async def test_a_replica_that_no_node_could_hold_is_refused_with_what_there_is(
    place: RayPlace,
) -> None:
    wanted = planned(place.launch(), threads=64, memory_bytes=2**40)
    await place.provisioner.start(wanted)
    seen = await place.until(lambda one: isinstance(one, NoCapacity))
    assert isinstance(seen, NoCapacity)
    assert "64 CPUs, 1024.0 GiB on one node" in seen.message
    assert "(2 CPUs, 1.0 GiB, 2 GPUs)" in seen.message
    assert await place.provisioner.shortage(wanted.plan) == seen.message


async def test_a_replica_with_gpus_sees_those_and_one_without_is_not_given_any(
    place: RayPlace,
) -> None:
    two = planned(place.launch(), gpu=GpuSpec(count=2), threads=1)
    await place.provisioner.start(two)
    await place.provisioner.start(planned(place.launch(key="rep_2"), threads=1))
    for key in ("rep_1", "rep_2"):
        await place.ready(key)
    environment = Path(f"/proc/{pid_of(place, 'rep_1')}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=0,1" in environment
    devices = [config_of(place, key)["device"] for key in ("rep_1", "rep_2")]
    assert devices == ["cuda", "cpu"]


async def test_a_replica_ends_with_what_holds_its_resources(place: RayPlace) -> None:
    endpoint = await place.served()
    seat = place.provisioner._replicas["rep_1"].taken.actor
    os.kill((await seat.place.remote()).pid, signal.SIGKILL)
    await place.exited()
    assert not await place.said(endpoint)


# --- what they read ---


def put_artifact(root: Path, digest: str, precision: str, key: str) -> Path:
    """An artifact as the runtime leaves it, as far as its manifest goes."""
    path = root / "cache" / "artifacts" / key
    path.mkdir(parents=True)
    weights = os.urandom(40 * 2**20)  # more than one piece
    (path / "weights.safetensors").write_bytes(weights)
    entry = {"bytes": len(weights), "sha256": sha256(weights).hexdigest()}
    source = {"digest": digest, "location": "here", "kind": "safetensors"}
    manifest = {"source": source, "precision": precision, "files": {"weights.safetensors": entry}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


async def key_of(place: RayPlace, launch: Launch) -> str:
    nodes = place.provisioner._nodes
    async with asyncio.timeout(place.patience_s):
        while not all(node.is_open for node in nodes):
            await asyncio.sleep(0.05)
    node = nodes.open_ones[0]
    key: str = await node.agent.artifact_key.remote(launch.digest, launch.plan.precision)
    return key


async def fill_both_nodes(place: RayPlace, launch: Launch) -> None:
    for key in ("rep_1", "rep_2"):
        await place.provisioner.start(replace(launch, replica_id=key))
    for key in ("rep_1", "rep_2"):
        await place.ready(key)


async def test_an_artifact_that_one_node_has_is_copied_to_another(place: RayPlace) -> None:
    launch = replace(place.launch(), task="generate", digest="sha256:once")
    a, b = (place.machines.directory(name) for name in ("a", "b"))
    key = await key_of(place, launch)
    built = put_artifact(a, launch.digest, launch.plan.precision, key)
    await fill_both_nodes(place, launch)
    copied = b / "cache" / "artifacts" / key
    assert {each.name for each in copied.iterdir()} == {"manifest.json", "weights.safetensors"}
    for each in copied.iterdir():
        assert each.read_bytes() == (built / each.name).read_bytes()
    (told,) = place.provisioner.notices()
    assert "its artifact (41.9 MB) went from node" in told.message


@pytest.mark.soak
async def test_a_damaged_artifact_is_not_taken_over(place: RayPlace) -> None:
    launch = replace(place.launch(), task="generate", digest="sha256:bad")
    a, b = (place.machines.directory(name) for name in ("a", "b"))
    key = await key_of(place, launch)
    built = put_artifact(a, launch.digest, launch.plan.precision, key)
    with (built / "weights.safetensors").open("r+b") as weights:
        weights.write(b"damaged")
    await fill_both_nodes(place, launch)
    assert [path.name for path in (b / "cache" / "artifacts").glob(f"{key}*")] == []
    assert place.provisioner.notices() == []


async def gone(place: RayPlace, *paths: Path) -> None:
    """Nothing reads them any more, and they are deleted."""
    await place.provisioner.kill("rep_1")
    await place.exited()
    await place.provisioner.forget("rep_1")
    async with asyncio.timeout(place.patience_s):
        while any(path.exists() for path in paths):
            await place.provisioner.keep_files(set())
            await asyncio.sleep(0.05)


@pytest.mark.soak
async def test_a_source_on_this_machine_is_copied_and_dropped_when_nobody_reads_it(
    place: RayPlace, tmp_path: Path
) -> None:
    model = write_tiny_model(tmp_path / "model")
    launch = replace(place.launch(), source=str(model), revision=None, digest=local_digest(model))
    await place.served_with(launch)
    copied = Path(config_of(place, "rep_1")["source"])
    assert place.machines.root in copied.parents
    assert local_digest(copied) == launch.digest
    await place.provisioner.keep_files({"rep_1"})
    assert copied.is_dir()
    await gone(place, copied)


async def test_the_artifact_of_a_draft_model_is_copied_in_its_own_precision(
    place: RayPlace,
) -> None:
    launch = planned(
        replace(place.launch(), task="generate", digest="sha256:large"),
        speculation=SpeculationSpec(method="draft", draft_model="hf://played/small"),
        draft=PlannedDraft(
            digest="sha256:small", precision="int4", weights_bytes=1, kv_cache_bytes=4096
        ),
    )
    guessing = planned(replace(launch, digest="sha256:small"), precision="int4")
    a, b = (place.machines.directory(name) for name in ("a", "b"))
    keys = [await key_of(place, each) for each in (launch, guessing)]
    for each, key in zip((launch, guessing), keys, strict=True):
        put_artifact(a, each.digest, each.plan.precision, key)
    await fill_both_nodes(place, launch)
    for key in keys:
        assert (b / "cache" / "artifacts" / key / "manifest.json").is_file()
    assert len(place.provisioner.notices()) == 2


async def test_a_draft_model_is_copied_beside_its_model_and_kept_as_long(
    place: RayPlace, tmp_path: Path
) -> None:
    model, small = (write_tiny_model(tmp_path / name) for name in ("model", "small"))
    (small / "generation_config.json").write_text("{}")
    digests = [local_digest(path) for path in (model, small)]
    assert digests[0] != digests[1]
    launch = planned(
        replace(place.launch(), source=str(model), revision=None, digest=digests[0]),
        speculation=SpeculationSpec(method="draft", draft_model=str(small)),
        draft=PlannedDraft(
            digest=digests[1], precision="int8", weights_bytes=1, kv_cache_bytes=4096
        ),
    )
    await place.served_with(launch)
    told = config_of(place, "rep_1")
    assert (told["draft"]["source_digest"], told["draft"]["kv_cache_bytes"]) == (digests[1], 4096)
    await place.provisioner.keep_files({"rep_1"})
    copied = [Path(told["source"]), Path(told["speculation"]["draft_model"])]
    for path, digest in zip(copied, digests, strict=True):
        assert place.machines.root in path.parents
        assert local_digest(path) == digest


def with_heads(place: RayPlace, heads: Path, digest: str) -> Launch:
    return planned(
        place.launch(),
        speculation=SpeculationSpec(method="medusa", heads=str(heads)),
        heads=PlannedHeads(digest=digest, weights_bytes=7),
    )


async def test_heads_are_copied_and_dropped_when_nobody_reads_them(
    place: RayPlace, tmp_path: Path
) -> None:
    heads = write_tiny_heads(tmp_path / "heads")
    (heads / "notes.txt").write_text("made on a Tuesday")
    await place.served_with(with_heads(place, heads, digest_of(heads)))
    told = config_of(place, "rep_1")
    assert told["heads"] == {"source_digest": digest_of(heads), "revision": None}
    copied = Path(told["speculation"]["heads"])
    assert place.machines.root in copied.parents
    assert {path.name for path in copied.iterdir()} == {"heads.json", "heads.safetensors"}
    for path in copied.iterdir():
        assert path.read_bytes() == (heads / path.name).read_bytes()
    (said,) = place.provisioner.notices()
    assert "its heads (0.0 MB) went to node" in said.message
    await place.provisioner.keep_files({"rep_1"})
    assert copied.is_dir()
    await gone(place, copied)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ({"model": "/models/other"}, "the heads arrived with the digest"),
        ({"file": {"bytes": 7, "sha256": "0"}}, "heads.safetensors arrived with the digest"),
    ],
)
async def test_heads_that_are_not_those_of_the_plan_are_not_used(
    place: RayPlace, tmp_path: Path, harm: dict[str, Any], said: str
) -> None:
    heads = write_tiny_heads(tmp_path / "heads")
    before = digest_of(heads)
    write_tiny_heads(heads, **harm)
    digest = digest_of(heads) if "file" in harm else before
    await place.provisioner.start(with_heads(place, heads, digest))
    seen = await place.exited()
    assert seen.reason == "StartFailed"
    assert said in seen.message
    assert not list(place.machines.root.glob(f"*/cache/heads/*{digest[7:]}*"))


@pytest.mark.soak
async def test_a_source_that_changed_since_the_plan_is_refused(
    place: RayPlace, tmp_path: Path
) -> None:
    model = write_tiny_model(tmp_path / "model")
    launch = replace(place.launch(), source=str(model), revision=None, digest="sha256:other")
    await place.provisioner.start(launch)
    seen = await place.exited()
    assert seen.reason == "StartFailed"
    assert f"arrived with the digest {local_digest(model)}, not sha256:other" in seen.message


# --- nodes that go and come ---


@pytest.mark.soak
async def test_replicas_of_a_lost_node_are_told_within_seconds_and_a_new_node_is_used(
    place: RayPlace,
) -> None:
    await fill_both_nodes(place, place.launch())
    lost = place.machines.home("rep_1")
    place.machines.lose(lost)
    seen = await place.until(lambda one: isinstance(one, Exited), within_s=10)
    assert isinstance(seen, Exited)
    assert (seen.reason, seen.refused) == ("NodeLost", False)
    place.machines.add(lost, num_gpus=2)
    await place.served(key="rep_3")
    assert place.machines.home("rep_3") == lost


async def test_a_cluster_that_is_not_there_is_named_with_what_to_do(place: RayPlace) -> None:
    await place.provisioner.close()
    place.machines.cluster, there = _Nowhere(), place.machines.cluster
    try:
        with pytest.raises(StartFailed, match=r"ray.address: cannot connect .*127.0.0.1:1"):
            await opened(place.machines)
    finally:
        place.machines.cluster = there


@pytest.mark.soak
async def test_nothing_of_an_embedded_cluster_outlives_a_control_plane_that_is_killed(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.integration.provision.embedded", str(tmp_path)]
    root = Path(__file__).parents[3]
    environment = {**os.environ, DIRECTORY_VARIABLE: str(tmp_path)}
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=root, env=environment
    )
    assert child.stdout is not None
    async with asyncio.timeout(120):
        pids = json.loads(await child.stdout.readline())
    assert len(pids) > 3
    child.kill()
    await child.wait()
    async with asyncio.timeout(30):
        while any(_runs(pid) for pid in pids):
            await asyncio.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class _Nowhere:
    address = "127.0.0.1:1"
