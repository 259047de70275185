"""`compress` from a source to an artifact: measured, resumable, and refused with a reason."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.integration.runtime.conftest import Spawn

from tidegate_runtime.artifact import __main__ as program
from tidegate_runtime.artifact.open import open_artifact
from tidegate_runtime.artifact.resolve import resolve
from tidegate_runtime.compress.assess import Assessment
from tidegate_runtime.compress.compress import CompressOrder, compress
from tidegate_runtime.compress.recipe import Asked, resolve_recipe
from tidegate_runtime.compress.work import Work
from tidegate_runtime.errors import ModelRefused

WINDOW, WINDOWS = 64, 3
NATIVE = {"hidden_size": 64, "max_position_embeddings": 128}
"""Heads of 16 components, which the kernels run."""


@pytest.fixture(scope="module")
def small(tiny: Callable[..., Path]) -> Path:
    return tiny("Llama", **NATIVE)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "calibration.txt"
    path.write_text("The tide waits for no one, and the gate is opened for the tide. " * 8)
    return path


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "held-out.txt"
    path.write_text("A quick brown fox jumps over the lazy dog, who sleeps on and on. " * 8)
    return path


Make = Callable[..., CompressOrder]


@pytest.fixture
def order(small: Path, text: Path, held_out: Path, tmp_path: Path) -> Make:
    """An order for the tiny model, which is measured on little."""

    def make(*methods: str, precision: str = "int4", source: Path = small, **more: Any) -> Any:
        return CompressOrder(
            source=resolve(str(source), None, tmp_path),
            recipe=resolve_recipe(Asked(methods, precision, **more)),
            output=tmp_path / "made",
            name="made",
            text=None if methods == ("rtn",) else text,
            window=WINDOW,
            windows=WINDOWS,
            assessment=Assessment(held_out, windows=1, max_ratio=None, threads=1),
            say=lambda line: None,
            advance=lambda progress: None,
        )

    return make


def weights(root: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(root / "weights.safetensors")
    return found


def test_what_is_made_is_an_artifact_that_tells_how(order: Make, text: Path) -> None:
    report = compress(order("sparsegpt", "gptq", sparsity="2:4"))
    root = order("gptq").output
    manifest = open_artifact(root).manifest  # every byte is verified
    assert manifest.compression is not None
    assert manifest.compression.methods == ["sparsegpt", "gptq"]
    assert manifest.compression.parameters["sparsity"] == "2:4"
    assert (manifest.compression.text, manifest.compression.windows) == (str(text), WINDOWS)
    assert manifest.quality is not None
    source, made = report.rows
    assert made.ratio == manifest.quality.ratio == made.perplexity / source.perplexity
    assert made.weights_bytes == manifest.weights_bytes
    assert made.decode_tokens_per_s is not None
    assert made.decode_tokens_per_s > 0
    assert json.loads((root / "quality.json").read_text()) == report.model_dump()
    drawn = ElementTree.parse(root / "quality.svg").getroot()
    assert len(drawn.findall(".//{*}circle")) == 2
    assert len(report.layer_errors) == 3
    assert not list(root.parent.glob("made.*"))


class Stopped(Exception):
    """The run is over."""


def stopped_after(given: CompressOrder, layers: int) -> None:
    """Begin a run and let it end as it begins its next layer."""

    def advance(progress: Any) -> None:
        if (progress.stage, progress.done) == ("layers", layers):
            raise Stopped

    with pytest.raises(Stopped):
        compress(replace(given, advance=advance))


def test_a_run_that_was_stopped_goes_on_and_makes_the_same(order: Make, tmp_path: Path) -> None:
    given = order("sparsegpt", "awq")
    stopped_after(given, 2)
    done: list[tuple[str, int]] = []
    compress(replace(given, advance=lambda step: done.append((step.stage, step.done))))
    assert done == [("layers", 2), ("layers", 3)]
    compress(replace(given, output=tmp_path / "at-once"))
    once, resumed = weights(tmp_path / "at-once"), weights(given.output)
    assert once.keys() == resumed.keys()
    for name, tensor in once.items():
        assert torch.equal(resumed[name], tensor), name


def test_work_that_was_begun_for_another_order_is_not_gone_on_with(order: Make) -> None:
    stopped_after(order("gptq"), 1)
    with pytest.raises(ModelRefused, match=r"begun with another method \(\['gptq'\]") as refused:
        compress(order("awq"))
    assert refused.value.reason == "WorkDiffers"


@pytest.mark.soak
def test_a_process_that_was_killed_leaves_what_the_next_goes_on_with(
    small: Path, text: Path, held_out: Path, tmp_path: Path
) -> None:
    output = tmp_path / "made"
    command = [
        *(sys.executable, "-m", "tidegate_runtime.artifact", "compress", str(small)),
        *("--method", "gptq", "--precision", "int8", "--output", str(output), "--threads", "1"),
        *("--text", str(text), "--window", str(WINDOW), "--windows", str(WINDOWS)),
        *("--quality-text", str(held_out), "--quality-windows", "1", "--progress", "--json"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if '"stage":"layers","done":1' in line:
                os.kill(child.pid, signal.SIGKILL)
                break
    assert not output.exists()
    assert Work(tmp_path / "made.work").done() >= 1
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert '"stage":"reading"' not in again.stderr
    assert '"stage":"layers","done":0' not in again.stderr
    assert json.loads(again.stdout)["rows"][1]["name"] == "gptq"
    assert open_artifact(output).manifest.precision == "int8"


def test_layers_that_turn_least_go_and_the_others_are_numbered_anew(
    order: Make, tiny: Callable[..., Path]
) -> None:
    source = tiny("Qwen2", num_hidden_layers=4, use_sliding_window=False, **NATIVE)
    state = load_file(source / "model.safetensors")
    for name in ("self_attn.o_proj", "mlp.down_proj"):  # a layer that does nearly nothing
        state[f"model.layers.1.{name}.weight"] *= 1e-3
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    compress(order("drop", precision="fp32", source=source, drop_layers=1))
    root = order("drop", drop_layers=1).output
    manifest = open_artifact(root).manifest
    assert manifest.compression is not None
    assert manifest.compression.kept_layers == [0, 2, 3]
    config = json.loads((root / "config.json").read_text())
    assert (config["num_hidden_layers"], len(config["layer_types"])) == (3, 3)
    made = weights(root)
    for now, before in enumerate([0, 2, 3]):
        name = "mlp.up_proj.weight"
        assert torch.equal(
            made[f"model.layers.{now}.{name}"], state[f"model.layers.{before}.{name}"]
        )
    assert manifest.quality is not None
    assert manifest.quality.ratio is not None
    assert manifest.quality.ratio < 1.05


def test_rounding_alone_is_what_build_does_and_needs_no_text(
    order: Make, artifact_of: Callable[..., Path], small: Path
) -> None:
    compress(order("rtn", precision="int8"))
    built, made = weights(artifact_of(small, "int8")), weights(order("rtn").output)
    assert built.keys() == made.keys()
    assert all(torch.equal(built[name], made[name]) for name in built)


def test_a_smaller_model_is_served_by_its_path(order: Make, spawn: Spawn) -> None:
    compress(order("awq"))
    replica = spawn(source=str(order("awq").output), precision="int4")
    replica.wait_for("ready")
    with replica.client() as client:
        answer = client.post(
            "/v1/completions", json={"model": "test-model", "prompt": "tide", "max_tokens": 4}
        )
    assert answer.json()["usage"]["completion_tokens"] >= 1


def test_a_result_below_its_bound_is_refused_and_its_work_kept(order: Make) -> None:
    given = order("wanda", precision="int8", sparsity="0.9")
    strict = replace(given, assessment=replace(given.assessment, max_ratio=0.5))
    with pytest.raises(ModelRefused, match=r"0\.5 is allowed; use a milder method") as refused:
        compress(strict)
    assert refused.value.reason == "QualityBound"
    assert not given.output.exists()
    assert Work(given.output.with_name("made.work")).done() == 3


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """What the program says when it refuses."""
    assert program.main(["compress", *arguments, "--json", "--threads", "1"]) == 3
    error: dict[str, str] = json.loads(capsys.readouterr().out)["error"]
    return error


def test_what_cannot_be_made_is_refused_by_field_value_and_remedy(
    order: Make,
    artifact_of: Callable[..., Path],
    tiny: Callable[..., Path],
    small: Path,
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = ("--precision", "int4", "--output", str(tmp_path / "made"))
    gptq = ("--method", "gptq", *made, "--text", str(text), "--window", "64")
    cache = ("--cache-dir", str(tmp_path))
    empty = tmp_path / "empty.txt"
    empty.touch()
    quantized = tiny("Llama")
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (quantized / "config.json").write_text(json.dumps(config))
    narrow = tiny("Llama", hidden_size=48, num_attention_heads=3, num_key_value_heads=3)
    cases = [
        ((str(small), "--method", "gptq", *made), "TextNeeded", "give --text FILE"),
        ((str(small), *gptq), "TextTooShort", "use a longer text, or --windows 8"),
        (
            (str(small), *gptq, "--text", str(empty)),
            "TextTooShort",
            "has 0 tokens, and 32 windows of 64 take 2048; use a longer text",
        ),
        ((str(small), *gptq, "--window", "129"), "BadWindow", "--window 129 is not within"),
        ((str(small), "--method", "x", *made), "UnknownMethod", "--method 'x'"),
        (
            (str(small), *gptq, "--windows", "2", "--quality-text", str(text)),
            "TextNotHeldOut",
            "give another",
        ),
        (
            (str(small), *gptq, "--method", "drop", "--drop-layers", "3"),
            "BadRecipe",
            "a model with 3 layers; drop 2 at most",
        ),
        ((str(quantized), *gptq), "AlreadyQuantized", "quantized by gptq already"),
        ((str(artifact_of(small, "int8")), *gptq), "AlreadyBuilt", "was built from"),
        ((str(narrow), *gptq), "UnsupportedPrecision", "has 48 inputs"),
        (
            (str(small), *gptq, "--output", str(tmp_path)),
            "OutputExists",
            "name a new directory",
        ),
        ((str(small), *gptq, "--output", str(empty / "out")), "OutputUnwritable", "you may write"),
    ]
    for arguments, reason, words in cases:
        error = refused(capsys, *arguments, *cache)
        assert error["reason"] == reason, error
        assert words in error["message"], error
