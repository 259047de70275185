"""A draft model from its declaration to the tokens: planned, pinned, built once, guessing."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.runtime.conftest import Replica, Spawn

from tidegate.protocol.resources import ReplicaPhase
from tidegate.spec import DeploymentSpec, Mode, Precision
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.deployments.planner import Planned, Planner
from tidegate_controlplane.domain.capabilities import Capabilities
from tidegate_controlplane.domain.replicas import Exited, Running
from tidegate_controlplane.provision.base import Launch
from tidegate_controlplane.provision.local import LocalProvisioner
from tidegate_controlplane.provision.start import SpawningStarter
from tidegate_controlplane.settings import ReconcileSettings
from tidegate_controlplane.store.sqlite import SqliteDatabase

ASK = {
    "model": "test-model",
    "prompt": "The sea is blue because",
    "temperature": 0,
    "max_tokens": 96,
    "ignore_eos": True,
}
DRAFTED, ACCEPTED = "spec_decode_num_draft_tokens", "spec_decode_num_accepted_tokens"


@pytest.fixture
async def provisioner(tmp_path: Path, cache_dir: Path) -> AsyncIterator[LocalProvisioner]:
    """Real processes, which find in the cache what other tests have built."""
    settings, starter = ReconcileSettings(), SpawningStarter()
    made = LocalProvisioner(tmp_path / "replicas", cache_dir, settings, SystemClock(), starter)
    yield made
    await made.close()


async def planned(spec: dict[str, Any], migrated: Path, tmp_path: Path) -> Planned:
    shutil.copy(migrated, tmp_path / "tidegate.db")
    database = SqliteDatabase(tmp_path / "tidegate.db")
    every = frozenset({Precision.FP32, Precision.BF16, Precision.INT8, Precision.INT4})
    here = Capabilities(frozenset({"local"}), every, memory_bytes=16 * 1024**3, cores=2)
    try:
        return await Planner(database, here).plan(DeploymentSpec.model_validate(spec))
    finally:
        database.close()


def launch(found: Planned) -> Launch:
    return Launch(
        replica_id="rep_1",
        deployment_id="dep_1",
        revision_id="rev_1",
        mode=Mode.REALTIME,
        model_name=found.spec.name,
        source=found.spec.model.source,
        task="generate",
        pooling=None,
        revision=found.model_revision,
        digest=found.facts.digest,
        plan=found.plan,
    )


async def end_of_start(provisioner: LocalProvisioner) -> Running | Exited:
    """How the replica is once it is ready, or has ended."""
    async with asyncio.timeout(240):
        while True:
            seen = (await provisioner.observe(["rep_1"]))["rep_1"]
            if isinstance(seen, Exited):
                return seen
            if isinstance(seen, Running) and seen.phase is ReplicaPhase.READY:
                return seen
            await asyncio.sleep(0.05)


def number(metrics: str, name: str) -> float:
    found = re.search(rf"^vllm:{name}_total\{{.*\}} (.*)$", metrics, re.MULTILINE)
    assert found is not None, metrics
    return float(found[1])


async def test_a_declared_draft_model_guesses_and_makes_no_difference_to_the_tokens(
    provisioner: LocalProvisioner,
    real: Replica,
    built: dict[str, Any],
    gguf: Path,
    migrated: Path,
    tmp_path: Path,
) -> None:
    del built  # the artifact in four bits that guesses for the one in sixteen
    asked = {"method": "draft", "draft_model": str(gguf), "max_tokens": 4}
    runtime = {"precision": "bf16", "context_tokens": 512, "speculation": asked}
    spec = {"name": "test-model", "model": str(gguf), "mode": "realtime", "runtime": runtime}
    found = await planned(spec, migrated, tmp_path)
    assert found.plan.draft is not None
    assert (found.plan.precision, found.plan.draft.precision) == ("bf16", "int4")

    await provisioner.start(launch(found))
    seen = await end_of_start(provisioner)
    assert isinstance(seen, Running), seen
    endpoint = provisioner.endpoint("rep_1")
    assert endpoint is not None
    headers = {"authorization": f"Bearer {endpoint.token}"}
    async with httpx.AsyncClient(base_url=endpoint.url, headers=headers, timeout=120) as client:
        said = (await client.post("/v1/completions", json=ASK)).raise_for_status().json()
        metrics = (await client.get("/metrics")).text
    with real.client() as plain:
        alone = plain.post("/v1/completions", json=ASK).raise_for_status().json()
    assert said["choices"][0]["text"] == alone["choices"][0]["text"]
    assert said["usage"]["completion_tokens"] == 96
    assert 0 < number(metrics, ACCEPTED) <= number(metrics, DRAFTED)


async def test_a_draft_model_whose_files_have_changed_is_refused(
    provisioner: LocalProvisioner,
    tiny: Callable[..., Path],
    migrated: Path,
    tmp_path: Path,
) -> None:
    model, draft = tiny("Llama"), tiny("Llama", num_hidden_layers=1)
    asked = {"method": "draft", "draft_model": str(draft)}
    runtime = {"precision": "fp32", "speculation": asked}
    spec = {"name": "tiny", "model": str(model), "mode": "realtime", "runtime": runtime}
    found = await planned(spec, migrated, tmp_path)
    config = json.loads((draft / "config.json").read_text())
    (draft / "config.json").write_text(json.dumps({**config, "changed": True}))
    await provisioner.start(launch(found))
    seen = await end_of_start(provisioner)
    assert isinstance(seen, Exited)
    assert (seen.reason, seen.refused) == ("SourceChanged", True)
    assert str(draft) in seen.message


def test_a_draft_model_with_a_shorter_context_and_other_padding_guesses_for_the_model(
    spawn: Spawn, tiny: Callable[..., Path], tiny_llama: Path
) -> None:
    """Its last layer has rows to spare, and its context ends within the answer."""
    small = tiny("Llama", vocab_size=288, max_position_embeddings=64)
    ask = {"model": "test-model", "prompt": "one two", "temperature": 0, "ignore_eos": True}
    answers = []
    for speculation in (None, {"method": "draft", "draft_model": str(small)}):
        replica = spawn(source=str(tiny_llama), precision="fp32", speculation=speculation)
        replica.wait_for("ready")
        with replica.client() as client:
            said = client.post("/v1/completions", json={**ask, "max_tokens": 90})
        answers.append(said.raise_for_status().json()["choices"][0]["text"])
        guessed = replica.metric(f"vllm:{DRAFTED}_total")
        assert (guessed > 0) is (speculation is not None)
        replica.process.kill()
    assert answers[0] == answers[1]


def test_a_draft_model_with_other_tokens_is_refused_by_a_replica_alone(
    spawn: Spawn, tiny: Callable[..., Path], tiny_llama: Path, tiny_tokenizer: Any
) -> None:
    stranger = tiny("Llama")
    tokenizer = json.loads((stranger / "tokenizer.json").read_text())
    tokens = tokenizer["model"]["vocab"]
    tokens["a"], tokens["b"] = tokens["b"], tokens["a"]
    (stranger / "tokenizer.json").write_text(json.dumps(tokenizer))
    speculation = {"method": "draft", "draft_model": str(stranger)}
    replica = spawn(source=str(tiny_llama), precision="fp32", speculation=speculation)
    status = replica.wait_for("failed")
    assert status["reason"] == "WrongDraftModel"
    assert "has other tokens than the model" in status["message"]
    assert replica.process.wait() == 3
