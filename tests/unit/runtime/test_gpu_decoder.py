"""The decoder of a GPU gives the tokens that transformers gives; its kernels are interpreted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.runtime.tiny_decoders import (
    CONTEXT_TOKENS,
    logits_of,
    packed_weights,
    ragged,
    tiny_model,
)

from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.open import check_capability, kind_on
from tidegate_runtime.models.transformers import TransformersDecoder
from tidegate_runtime.models.triton import TritonOperators
from tidegate_runtime.models.weights import Weights
from tidegate_runtime.ops.triton.cache import Tiling
from tidegate_runtime.server import encoders
from tidegate_runtime.server.__main__ import alone, parser

SMALL = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
PROMPTS = {(9, 3): [(7 * i * i + 3 * i + 11) % 64 for i in range(19)], (4, 30): [5, 50, 17]}
MODELS = {"Llama": {"tie_word_embeddings": True}, "Qwen3": {"tie_word_embeddings": False}}
NEW_TOKENS = 4
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def on_device(config: Any, weights: Weights, kv: str = "fp32") -> TransformersDecoder:
    operators = TritonOperators(
        torch.device("cpu"),
        torch.float32,
        config.num_attention_heads,
        Tiling(rows=16, tokens=16, split_tokens=16),
    )
    decoder = TransformersDecoder(
        config, weights, operators=operators, kv=kv, context_tokens=CONTEXT_TOKENS
    )
    decoder.allocate(32)
    return decoder


def with_values(model: Any, weights: Weights) -> Any:
    """The same model in transformers over the values of packed weights."""
    embedding = model.get_input_embeddings()
    for name, linear in weights.linears.items():
        model.get_submodule(name).weight.data = linear.values()
    if weights.linears and not weights.tied:
        embedding.weight.data = embedding.weight.data.bfloat16().float()
    return model


@torch.inference_mode()
def greedy(model: Any, prompt: list[int]) -> tuple[list[int], torch.Tensor]:
    """The tokens that transformers would choose, and the log-probabilities of each choice."""
    tokens, rows = list(prompt), []
    for _ in range(NEW_TOKENS):
        rows.append(model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1))
        tokens.append(int(rows[-1].argmax()))
    return tokens[len(prompt) :], torch.stack(rows)


@pytest.mark.parametrize(("name", "bits"), [("Llama", 4), ("Llama", 32), ("Qwen3", 16)])
def test_greedy_tokens_are_those_of_transformers(name: str, bits: int) -> None:
    model = tiny_model(name, **SMALL, **MODELS[name])
    weights = packed_weights(model, bits)
    decoder = on_device(model.config, weights)
    wanted = [greedy(with_values(model, weights), prompt) for prompt in PROMPTS.values()]
    parts = [(prompt, 0, list(blocks)) for blocks, prompt in PROMPTS.items()]
    chosen: list[list[int]] = [[] for _ in PROMPTS]
    for step in range(NEW_TOKENS):
        batch = ragged(*parts)
        last = batch.starts[1:] - 1
        found = decoder.forward(
            type(batch)(batch.tokens, batch.positions, batch.starts, batch.tables, last)
        )
        assert found.finite == [True] * len(parts)
        for place, (tokens, first, blocks) in enumerate(parts):
            logprobs = found.logits[place].log_softmax(-1)
            assert torch.allclose(logprobs, wanted[place][1][step], atol=1e-4)
            chosen[place].append(found.best[place])
            parts[place] = ([found.best[place]], first + len(tokens), blocks)
    assert chosen == [tokens for tokens, _ in wanted]


def test_a_chunk_without_wanted_rows_gives_none_and_the_next_goes_on_from_it() -> None:
    model = tiny_model("Llama", **SMALL)
    decoder = on_device(model.config, packed_weights(model, 8), "int8")
    prompt, blocks = PROMPTS[9, 3], [9, 3]
    wanted = logits_of(decoder, (prompt, 0, [7, 2]))[-3:]
    batch = ragged((prompt[:16], 0, blocks))
    none = np.zeros(0, dtype=np.int32)
    found = decoder.forward(
        type(batch)(batch.tokens, batch.positions, batch.starts, batch.tables, none)
    )
    assert (found.best, found.finite, len(found.logits)) == ([], [], 0)
    assert torch.equal(logits_of(decoder, (prompt[16:], 16, blocks)), wanted)


@without_gpu
def test_a_gpu_that_is_absent_is_refused_by_name() -> None:
    with pytest.raises(ModelRefused, match=r"device 'cuda' .* sees no GPU .* to 'cpu'") as refused:
        kind_on("cuda")
    assert refused.value.reason == "DeviceMissing"
    assert kind_on("auto") is None
    assert kind_on("cpu") is None


def test_fp8_is_refused_where_the_gpu_cannot_convert_it() -> None:
    check_capability("fp8", (8, 9))
    check_capability("int8", (8, 0))
    with pytest.raises(ModelRefused, match=r"kv 'fp8' .* 8\.0; set kv to"):
        check_capability("fp8", (8, 0))


def configured(tmp_path: Path, *arguments: str) -> ReplicaConfig:
    line = ["--artifact", str(tmp_path), "--model-name", "tiny", *arguments]
    return alone(parser().parse_args(line))


def test_a_replica_alone_takes_a_gpu_if_there_is_one(tmp_path: Path) -> None:
    assert configured(tmp_path).device == "auto"
    assert configured(tmp_path, "--device", "cpu").device == "cpu"
    assert ReplicaConfig.model_fields["device"].default == "cpu"


def test_embeddings_are_refused_on_a_gpu(tmp_path: Path) -> None:
    alone = configured(tmp_path, "--device", "cuda")
    config = alone.model_copy(update={"task": "embed"})
    with pytest.raises(ModelRefused, match=r"device 'cuda' .* task 'embed'; set device to 'cpu'"):
        encoders.load_encode(config, None, None)  # type: ignore[arg-type]
