"""Mixtures whose experts were quantized one by one are served as what they stand for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.integration.runtime.test_tokens import FAMILIES, PROMPTS, make_engine, outputs_of
from tests.unit.runtime.artifact.bitsandbytes_layouts import BITSANDBYTES
from tests.unit.runtime.artifact.quantized_checkpoints import quantize_published
from tests.unit.runtime.artifact.quantized_layouts import LAYOUTS, awq, gptq, short_scales
from tests.unit.runtime.artifact.torchao_layouts import TORCHAO

from tidegate_runtime.artifact.check import check_path
from tidegate_runtime.artifact.checkpoint import open_checkpoint
from tidegate_runtime.artifact.open import open_artifact
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.ops.quantized import QuantizedWeight, unpack

KINDS = ["Mixtral", "Qwen3Moe"]
GPTQ = gptq(4, 64, symmetric=False, act_order=False, version=1, scales_of=short_scales)
FORMATS = {
    "gptq": GPTQ,
    "awq": awq(32, short_scales),
    **{
        name: (LAYOUTS | TORCHAO | BITSANDBYTES)[name]
        for name in (
            *("gptq 4 act-order", "gptq v2 8 sym", "compressed int4 groups"),
            *("compressed int8 channel", "compressed fp8", "fp8 tiles", "torchao int8 groups"),
            "bnb nf4 nested",
        )
    },
}
"""None of which a build rounds at all."""


@pytest.fixture
def mixture(tiny: Callable[..., Path], tmp_path: Path) -> Callable[[str, str], tuple[Path, Path]]:
    """A tiny mixture of a kind in a format, and beside it the values that this stands for."""

    def make(kind: str, name: str) -> tuple[Path, Path]:
        sizes = {"hidden_size": 64, "intermediate_size": 64}
        if kind == "Qwen3Moe":
            sizes["moe_intermediate_size"] = 64
        plain = tiny(kind, **{**FAMILIES[kind], **sizes})
        experts = quantize_published(tmp_path / "quantized", plain, FORMATS[name])
        assert experts == 3 * 4 * 3
        return tmp_path / "quantized", plain

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMATS)
async def test_tokens_and_logprobs_are_those_of_the_dequantized_weights_in_transformers(
    mixture: Callable[[str, str], tuple[Path, Path]],
    artifact_of: Callable[..., Path],
    kind: str,
    name: str,
) -> None:
    quantized, plain = mixture(kind, name)
    engine = make_engine(artifact_of(quantized))
    model = transformers.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    found = await asyncio.gather(*(outputs_of(engine, prompt, 8) for prompt in PROMPTS[:4]))
    for prompt, outputs in zip(PROMPTS[:4], found, strict=True):
        tokens = [output.token for output in outputs]
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        assert tokens == logits.argmax(-1).tolist()
        wanted = logits.log_softmax(-1).amax(-1).tolist()
        assert [each.logprobs.logprob for each in outputs] == pytest.approx(wanted, abs=1e-4)
    engine.stop("done")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "bits"), [("awq", 4), ("gptq v2 8 sym", 8)])
def test_the_codes_of_every_expert_are_kept(
    mixture: Callable[[str, str], tuple[Path, Path]],
    artifact_of: Callable[..., Path],
    kind: str,
    name: str,
    bits: int,
) -> None:
    quantized, _ = mixture(kind, name)
    stacks = {
        stack: weight
        for stack, weight in open_checkpoint(check_path(quantized)).tensors()
        if stack.endswith(("gate_up_proj", "down_proj"))
    }
    assert len(stacks) == 6
    artifact = artifact_of(quantized, "auto")
    linears = open_artifact(artifact).manifest.linears
    with safe_open(artifact / "weights.safetensors", "pt") as file:
        stored = set(file.keys())
        for stack, weight in stacks.items():
            assert isinstance(weight, QuantizedWeight)
            for number in range(4):
                expert, entry = f"{stack}.{number}", linears[f"{stack}.{number}"]
                parts = {
                    part: file.get_tensor(f"{expert}.{part}")
                    for part in ("codes", "scales", "minimums")
                    if f"{expert}.{part}" in stored
                }
                read = unpack(parts, entry.out, entry.bits)
                assert isinstance(read, QuantizedWeight)
                assert entry.bits == bits
                assert torch.equal(read.codes, weight.codes[number])
                assert torch.equal(read.scales, weight.scales[number])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("part", "says"),
    [("scales", "lacks 'scales'"), ("qweight", "lacks 1 weights")],
)
def test_an_expert_that_lacks_a_part_is_refused_with_its_name(
    mixture: Callable[[str, str], tuple[Path, Path]],
    artifact_of: Callable[..., Path],
    kind: str,
    part: str,
    says: str,
) -> None:
    quantized, _ = mixture(kind, "awq")
    file = quantized / "model.safetensors"
    stored = load_file(file)
    lost = next(name for name in stored if ".experts.2." in name and name.endswith(f".{part}"))
    del stored[lost]
    save_file(stored, file)
    with pytest.raises(ModelRefused, match=says) as caught:
        artifact_of(quantized)
    assert caught.value.reason == "BrokenModel"
    assert lost.rpartition(".")[0] in caught.value.message


def test_an_expert_that_was_left_as_it_is_is_read_so(
    mixture: Callable[[str, str], tuple[Path, Path]],
) -> None:
    quantized, plain = mixture("Mixtral", "awq")
    file, values = quantized / "model.safetensors", load_file(plain / "model.safetensors")
    expert = next(name for name in values if ".layers.1." in name and ".experts.3.w2" in name)
    stored = load_file(file)
    layer = expert.removesuffix(".weight")
    kept = {name: tensor for name, tensor in stored.items() if not name.startswith(f"{layer}.")}
    save_file({**kept, expert: values[expert]}, file)
    config = json.loads((quantized / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "awq"
    found = dict(open_checkpoint(check_path(quantized)).tensors())
    stack = found["model.layers.1.mlp.experts.down_proj"]
    assert isinstance(stack, torch.Tensor)
    assert torch.equal(stack[3], values[expert])
    save_file({**kept, expert: values[expert][:-1].contiguous()}, file)
    with pytest.raises(ModelRefused, match=r"experts\.3\.w2\.weight' has the shape"):
        list(open_checkpoint(check_path(quantized)).tensors())
