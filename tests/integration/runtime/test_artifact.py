"""Artifacts built, measured, refused and served: the command, and a replica alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf as ggml
import httpx
import numpy as np
import psutil
import pytest
import torch
from safetensors import safe_open
from tests.integration.runtime.conftest import artifact_command, run_artifact
from tests.ports import free_port

from tidegate.protocol.resources import ResolvedPlan
from tidegate.spec import DeploymentSpec, ModelSpec
from tidegate_controlplane.domain.footprint import PROCESS_BYTES
from tidegate_controlplane.domain.plan import resolve
from tidegate_controlplane.machine import capabilities
from tidegate_controlplane.models.inspect import inspect
from tidegate_runtime.artifact.open import open_artifact
from tidegate_runtime.artifact.resolve import resolve as resolve_source
from tidegate_runtime.ops.quantized import QuantizedWeight, dequantize, unpack

# --- what is built --------------------------------------------------------------------------------


def linear(root: Path, name: str) -> torch.Tensor:
    """The values of a packed layer."""
    entry = open_artifact(root).manifest.linears[name]
    with safe_open(root / "weights.safetensors", "pt") as file:
        parts = {
            part: file.get_tensor(f"{name}.{part}")
            for part in ("codes", "scales", "minimums")
            if f"{name}.{part}" in file.keys()  # noqa: SIM118
        }
    found = unpack(parts, entry.out, entry.bits)
    return dequantize(found) if isinstance(found, QuantizedWeight) else found.float()


def test_the_codes_of_a_gguf_file_are_taken_as_they_are(built: dict[str, Any], gguf: Path) -> None:
    root = Path(built["artifact"])
    stored = {
        tensor.name: torch.from_numpy(ggml.dequantize(np.array(tensor.data), tensor.tensor_type))
        for tensor in ggml.GGUFReader(gguf).tensors
        if tensor.name.startswith(("blk.7.", "token_embd"))
    }
    assert torch.equal(linear(root, "lm_head"), stored["token_embd.weight"])
    layer = "model.layers.7."
    for ours, theirs in (("mlp.down_proj", "ffn_down"), ("self_attn.o_proj", "attn_output")):
        assert torch.equal(linear(root, layer + ours), stored[f"blk.7.{theirs}.weight"])
    # Rotary embeddings pair rows differently in the file: halves of a head there are interleaved.
    for ours, theirs, heads in (("q_proj", "attn_q", 9), ("k_proj", "attn_k", 3)):
        rows = stored[f"blk.7.{theirs}.weight"]
        wanted = rows.view(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
        assert torch.equal(linear(root, f"{layer}self_attn.{ours}"), wanted)


def test_a_build_tells_what_its_precision_costs(built: dict[str, Any]) -> None:
    manifest = open_artifact(Path(built["artifact"])).manifest
    assert manifest.quality is not None
    assert manifest.quality.ratio == built["quality"]["ratio"]
    assert abs(built["quality"]["ratio"] - 1) < 0.01
    assert built["quality"]["agreement"] > 0.9
    assert built["quality"]["mean_kl"] < 0.02
    assert built["quality"]["bound"] == 1.10
    assert built["quality_note"] is None


def test_what_is_in_the_cache_is_not_built_again(
    built: dict[str, Any], gguf: Path, cache_dir: Path
) -> None:
    stamp = (Path(built["artifact"]) / "config.json").stat().st_mtime_ns
    arguments = ("--precision", "int4", "--cache-dir", str(cache_dir))
    assert artifact_command("build", str(gguf), *arguments) == built
    assert (Path(built["artifact"]) / "config.json").stat().st_mtime_ns == stamp


def test_the_quality_command_measures_on_a_text_of_one_s_own(
    tiny_llama: Path, artifact_of: Callable[..., Path], tmp_path: Path
) -> None:
    artifact = str(artifact_of(tiny_llama, "int8"))
    text = tmp_path / "text"
    text.write_text("The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 20)
    options = ("--text", str(text), "--window", "64", "--windows", "3")
    found = artifact_command("quality", artifact, *options)
    assert (found["text"], found["window"], found["tokens"]) == (str(text), 64, 3 * 63)
    assert found["perplexity"] > 1
    assert 0 < abs(found["ratio"] - 1) < 0.05
    assert found["agreement"] > 0.85
    alone = artifact_command("quality", artifact, *options, "--no-reference")
    assert alone["perplexity"] == found["perplexity"]
    assert alone["ratio"] is None


@pytest.mark.parametrize("precision", ["int4", "int8", "bf16", "fp32"])
def test_every_precision_holds_the_source_s_values_as_well_as_its_bits_allow(
    tiny_llama: Path, artifact_of: Callable[..., Path], precision: str
) -> None:
    root = artifact_of(tiny_llama, precision)
    with safe_open(tiny_llama / "model.safetensors", "pt") as file:
        wanted = file.get_tensor("model.layers.1.mlp.up_proj.weight").float()
    if precision == "fp32":
        with safe_open(root / "weights.safetensors", "pt") as file:
            found = file.get_tensor("model.layers.1.mlp.up_proj.weight")
    else:
        found = linear(root, "model.layers.1.mlp.up_proj")
    worst = float((found - wanted).abs().max() / wanted.abs().max())
    assert worst <= {"int4": 0.07, "int8": 0.005, "bf16": 0.004, "fp32": 0.0}[precision]


def test_a_precision_below_its_bound_is_refused_with_the_figures(
    tiny_llama: Path, tmp_path: Path
) -> None:
    output = tmp_path / "made"
    options = ("--output", str(output), "--max-perplexity-ratio", "0.5", "--precision", "int8")
    error = run_artifact("build", str(tiny_llama), *options, status=3)["error"]
    assert error["reason"] == "QualityBound"
    for word in ("times the perplexity of its source", "greedy tokens agree", "0.5 is allowed"):
        assert word in error["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_is_not_measured_says_so(tiny_llama: Path, tmp_path: Path) -> None:
    output = tmp_path / "made"
    options = ("--output", str(output), "--no-quality", "--precision", "int8")
    made = artifact_command("build", str(tiny_llama), *options)
    assert (made["quality"], made["quality_note"]) == (None, "not measured, as asked")
    assert open_artifact(output).manifest.name == "made"
    error = artifact_command("build", str(tiny_llama), *options, status=3)["error"]
    assert error["reason"] == "OutputExists"


def test_a_source_that_is_not_the_expected_one_is_refused_with_both_digests(
    tiny_llama: Path, tmp_path: Path
) -> None:
    digest = resolve_source(str(tiny_llama), None, tmp_path).digest
    options = ("--cache-dir", str(tmp_path), "--expect-digest", "sha256:other")
    error = artifact_command("build", str(tiny_llama), *options, status=3)["error"]
    assert error["reason"] == "SourceChanged"
    assert digest in error["message"]
    assert "sha256:other" in error["message"]


async def test_the_digest_of_a_source_is_that_of_its_plan(
    tiny_llama: Path, gguf: Path, tmp_path: Path
) -> None:
    async def unknown(digest: str) -> None: ...

    (tiny_llama / "README.md").write_text("not part of the model")
    for source in (str(tiny_llama), str(gguf)):
        planned = await inspect(ModelSpec(source=source), unknown)
        assert resolve_source(source, None, tmp_path).digest == planned.facts.digest


def test_weights_in_several_files_are_one_model(
    tiny: Callable[..., Path], artifact_of: Callable[..., Path]
) -> None:
    import transformers

    whole, parts = tiny("Llama"), tiny("Llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(whole)
    (parts / "model.safetensors").unlink()
    model.save_pretrained(parts, max_shard_size="20KB")
    assert len(list(parts.glob("model-*.safetensors"))) > 1
    one, other = artifact_of(whole, "int8"), artifact_of(parts, "int8")
    weights = [(root / "weights.safetensors").read_bytes() for root in (one, other)]
    assert weights[0] == weights[1]


# --- replicas -------------------------------------------------------------------------------------


async def test_a_plan_predicts_the_memory_that_a_replica_takes(
    spawn: Callable[..., Any], gguf: Path, built: dict[str, Any]
) -> None:
    async def unknown(digest: str) -> None: ...

    facts = (await inspect(ModelSpec(source=str(gguf)), unknown)).facts
    runtime = {"kv_cache": 96 * 1024**2, "context_tokens": 1024}
    spec = DeploymentSpec.model_validate(
        {"name": "m", "model": str(gguf), "mode": "serverless", "runtime": runtime}
    )
    plan = resolve(spec, facts, capabilities())
    assert isinstance(plan, ResolvedPlan)
    assert plan.precision == "int4"
    assert plan.weights_bytes == pytest.approx(built["weights_bytes"], rel=0.02)

    replica = spawn(
        source=str(gguf),
        precision=plan.precision,
        context_tokens=plan.context_tokens,
        kv_cache_bytes=plan.kv_cache_bytes,
        max_sequences=4,
    )
    replica.wait_for("ready")
    tokens = httpx.get(replica.url + "/readyz").json()["kv_cache_tokens"]
    assert tokens * built["memory"]["kv_per_token"]["int8"] <= plan.kv_cache_bytes
    with replica.client() as client:
        for start in range(0, tokens, 1000):
            prompt = [token % 40_000 + 100 for token in range(start * 7, start * 7 + 1000)]
            body = {"model": "test-model", "prompt": [prompt], "max_tokens": 2}
            assert client.post("/v1/completions", json=body).status_code == 200
    taken = psutil.Process(replica.process.pid).memory_full_info().uss
    replica.process.kill()
    assert taken == pytest.approx(plan.memory_bytes, rel=0.15)
    assert plan.memory_bytes == plan.weights_bytes + plan.kv_cache_bytes + PROCESS_BYTES


# --- one replica alone ----------------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], Path]]]:
    """Start `python -m tidegate_runtime.server --artifact …`."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, token: str = "") -> tuple[subprocess.Popen[bytes], Path]:
        log = tmp_path / f"log{len(started)}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tidegate_runtime.server", *arguments],
                env={**os.environ, "TIDEGATE_REPLICA_TOKEN": token},
                stdout=output,
                stderr=output,
            )
        started.append(process)
        return process, log

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            answer = httpx.get(f"{url}/readyz")
        except httpx.TransportError:
            time.sleep(0.05)
            continue
        if answer.status_code == 200:
            said = answer.json()
            assert isinstance(said, dict)
            return said
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_an_artifact_is_served_alone(
    alone: Callable[..., Any], built: dict[str, Any], tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    where = ("--artifact", built["artifact"], "--port", str(port))
    process, log = alone(*where, "--kv", "fp32", "--speculation", "ngram", "--max-sequences", "4")
    assert wait_ready(url, process, log)["context_tokens"] == 8192
    body = {
        "model": built["name"],
        "messages": [
            {"role": "user", "content": "What is the capital of Peru? Answer in one sentence."}
        ],
        "temperature": 0,
        "max_tokens": 24,
    }
    made = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
    assert "Lima" in made["choices"][0]["message"]["content"]
    other = httpx.post(f"{url}/v1/chat/completions", json={**body, "model": "other"})
    assert other.status_code == 404
    assert [card["id"] for card in httpx.get(f"{url}/v1/models").json()["data"]] == ["test-model"]
    rebound = httpx.get(f"{url}/v1/models", headers={"Host": "evil.example"})
    assert (rebound.status_code, rebound.json()["error"]["code"]) == (403, "forbidden_host")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "replica is draining" in log.read_text()


def test_a_replica_alone_keeps_to_its_token(
    alone: Callable[..., Any], tiny_llama: Path, artifact_of: Callable[..., Path]
) -> None:
    port = free_port()
    artifact = str(artifact_of(tiny_llama, "int8"))
    where = ("--artifact", artifact, "--host", "0.0.0.0", "--port", str(port))
    process, log = alone(*where)
    assert process.wait(60) == 3
    assert "TIDEGATE_REPLICA_TOKEN" in log.read_text()
    process, log = alone(*where, "--model-name", "mine", token="secret")
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process, log)
    assert httpx.get(f"{url}/v1/models").status_code == 401
    headers = {"Authorization": "Bearer secret"}
    found = httpx.get(f"{url}/v1/models", headers=headers).json()
    assert [card["id"] for card in found["data"]] == ["mine"]


@pytest.mark.soak
def test_speculation_by_a_model_makes_no_difference_to_the_tokens(
    alone: Callable[..., Any], tiny_llama: Path, artifact_of: Callable[..., Path]
) -> None:
    # A model that drafts for itself is always right; int8 beside fp32 is, mostly.
    artifact = str(artifact_of(tiny_llama, "int8"))
    body = {"model": "tiny", "prompt": "one two one two", "temperature": 0, "max_tokens": 48}
    found, metrics = [], []
    draft = ("--speculation", "draft", "--draft-model", str(tiny_llama))
    for more in ((), draft, ("--speculation", "early_exit", "--exit-layer", "1")):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        where = ("--artifact", artifact, "--model-name", "tiny", "--port", str(port))
        process, log = alone(*where, *more)
        wait_ready(url, process, log)
        made = httpx.post(f"{url}/v1/completions", json={**body, "ignore_eos": True}, timeout=60)
        found.append(made.raise_for_status().json())
        metrics.append(httpx.get(f"{url}/metrics").text)
        process.kill()
    plain, *others = found
    for each in others:
        assert each["choices"][0]["text"] == plain["choices"][0]["text"]
        assert each["usage"] == plain["usage"]
    made_guesses = 'vllm:spec_decode_num_draft_tokens_total{model_name="tiny"} '
    assert f"{made_guesses}0.0" not in metrics[2]
    counter = 'vllm:spec_decode_num_accepted_tokens_total{model_name="tiny"} '
    assert f"{counter}0.0" in metrics[0]
    accepted = metrics[1].split(counter)[1].split()[0]
    assert float(accepted) >= 24


@pytest.mark.parametrize("damage", ["weights.safetensors", "manifest.json", "nothing"])
def test_what_is_no_whole_artifact_is_refused_by_name(
    alone: Callable[..., Any], tiny_llama: Path, artifact_of: Callable[..., Path], damage: str
) -> None:
    artifact = artifact_of(tiny_llama, "int8")
    path = artifact / damage
    if path.exists():
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()
        content[-1] ^= 1
        path.write_bytes(content.tobytes())
    else:
        artifact = artifact / "nothing"
    process, log = alone("--artifact", str(artifact))
    assert process.wait(60) == 3
    assert str(path) in log.read_text()
    assert "build it again" in log.read_text()


# --- what a silent request gets -------------------------------------------------------------------


def test_what_the_author_says_of_sampling_is_what_a_silent_request_gets(
    tiny: Callable[..., Path], artifact_of: Callable[..., Path]
) -> None:
    from tidegate_runtime.artifact.load import load_generator

    source = tiny("Llama")
    said = {"do_sample": False, "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1}
    (source / "generation_config.json").write_text(json.dumps({**said, "eos_token_id": [7, 9]}))
    loaded = load_generator(open_artifact(artifact_of(source)), context_tokens=None)
    del said["do_sample"]
    assert dict(loaded.sampling_defaults) == said
    assert loaded.eos_tokens == {7, 9, 256}
