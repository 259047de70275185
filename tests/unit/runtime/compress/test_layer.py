"""What is found out about a layer by running it: no family's wiring is written down."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.runtime.tiny_decoders import tiny_model

from tidegate_runtime.compress.decoder_layers import DecoderLayers
from tidegate_runtime.compress.layer import find_outlet, linears_of, observe, rescale
from tidegate_runtime.compress.layer_recipe import compress_layer
from tidegate_runtime.compress.recipe import Asked, resolve_recipe
from tidegate_runtime.ops.quantized import QuantizedWeight, dequantize

WINDOWS = [[(7 * place + 31 * window) % 300 for place in range(48)] for window in range(4)]


def entered(model: Any) -> tuple[DecoderLayers, list[torch.Tensor]]:
    """The layers of a model, and what goes into the first."""
    layers = DecoderLayers(Path("/models/tiny"), model.config)
    around = {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith(layers.prefix)
    }
    return layers, layers.enter(around, WINDOWS)


def loaded(layers: DecoderLayers, model: Any, index: int) -> torch.nn.Module:
    return layers.load(index, model.get_submodule(f"{layers.prefix}{index}").state_dict())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Llama", {}),
        ("Qwen3", {}),
        ("Mistral", {"sliding_window": 16}),
        ("Gemma2", {"sliding_window": 16}),
        ("Phi", {}),
    ],
)
@torch.inference_mode()
def test_layer_by_layer_a_model_computes_what_it_does_as_a_whole(
    kind: str, options: dict[str, Any]
) -> None:
    model = tiny_model(kind, **options)
    layers, hidden = entered(model)
    for index in range(len(layers)):
        layer = loaded(layers, model, index)
        hidden = [layers.run(index, layer, window) for window in hidden]
    norm = model.base_model.final_layernorm if kind == "Phi" else model.base_model.norm
    for window, found in zip(WINDOWS, hidden, strict=True):
        wanted = model.base_model(torch.tensor([window]), use_cache=False).last_hidden_state
        torch.testing.assert_close(norm(found), wanted, rtol=1e-4, atol=1e-4)


Q, K, V, OUT = (f"self_attn.{name}_proj" for name in "qkvo")
GATE, UP, DOWN = (f"mlp.{name}_proj" for name in ("gate", "up", "down"))
IN_NORM, MLP_NORM = "input_layernorm", "post_attention_layernorm"


@pytest.mark.parametrize(
    ("kind", "options", "wanted"),
    [
        ("Llama", {}, {(Q, K, V): IN_NORM, (OUT,): None, (GATE, UP): MLP_NORM, (DOWN,): UP}),
        (
            "Llama",
            {"num_key_value_heads": 6},
            {(Q, K, V): IN_NORM, (OUT,): V, (GATE, UP): MLP_NORM, (DOWN,): UP},
        ),
        (
            "Gemma2",
            {"sliding_window": 16},
            {
                (Q, K, V): IN_NORM,
                (OUT,): None,
                (GATE, UP): "pre_feedforward_layernorm",
                (DOWN,): UP,
            },
        ),
    ],
)
def test_what_may_be_rescaled_is_found_by_trying(
    kind: str, options: dict[str, Any], wanted: dict[tuple[str, ...], str | None]
) -> None:
    model = tiny_model(kind, **options)
    layers, hidden = entered(model)
    layer, run = loaded(layers, model, 0), partial(layers.run, 0)
    junctions = observe(layer, run, hidden)
    outlets = {each.linears: find_outlet(layer, run, hidden[0], each) for each in junctions}
    assert {linears: each and each.name for linears, each in outlets.items()} == wanted
    before = run(layer, hidden[1])
    for linears, outlet in outlets.items():
        if outlet is not None:
            inputs = layer.get_submodule(linears[0]).in_features
            rescale(layer, linears, outlet, torch.linspace(0.3, 3.0, inputs))
    torch.testing.assert_close(run(layer, hidden[1]), before, rtol=1e-3, atol=1e-3)


def test_an_input_that_somebody_else_reads_too_is_not_rescaled() -> None:
    class Leaky(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.LayerNorm(32)
            self.up = torch.nn.Linear(32, 32)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            read = self.norm(hidden)
            return self.up(read) + read

    layer, text = Leaky().requires_grad_(requires_grad=False), torch.randn(1, 8, 32)
    run = lambda layer, hidden: layer(hidden)  # noqa: E731
    (junction,) = observe(layer, run, [text])
    assert (junction.linears, junction.norm) == (("up",), "norm")
    assert find_outlet(layer, run, text, junction) is None


@pytest.mark.parametrize(
    ("methods", "precision", "most"),
    [
        (["rtn", "wanda"], "int8", 0.2),
        (["smoothquant"], "int8", 0.001),
        (["gptq"], "int4", 0.01),
        (["awq"], "int4", 0.01),
        (["sparsegpt", "gptq"], "int4", 0.2),
        (["wanda", "awq"], "int4", 0.2),
        (["sparsegpt"], "bf16", 0.2),
    ],
)
def test_a_layer_computes_with_the_weights_that_it_is_given(
    methods: list[str], precision: str, most: float
) -> None:
    model = tiny_model("Llama")
    layers, hidden = entered(model)
    layer, run = loaded(layers, model, 0), partial(layers.run, 0)
    wanted = run(layer, hidden[0])
    result = compress_layer(layer, run, hidden, resolve_recipe(Asked(methods, precision)))
    for name, linear in linears_of(layer).items():
        weight = result.state[f"{name}.weight"]
        assert isinstance(weight, QuantizedWeight) == (precision != "bf16")
        values = dequantize(weight) if isinstance(weight, QuantizedWeight) else weight
        assert torch.equal(values, linear.weight)
        assert 0 < result.errors[name] <= most
        if {"wanda", "sparsegpt"} & set(methods):
            assert float((values == 0).float().mean()) >= 0.5
    off = float((run(layer, hidden[0]) - wanted).norm() / wanted.norm())
    assert 0 < off < 1


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_no_linear_of_a_layer_loses_more_than_by_rounding(method: str) -> None:
    model = tiny_model("Llama")
    layers, hidden = entered(model)
    errors = {}
    for name in (method, "rtn"):
        layer = loaded(layers, model, 0)
        recipe = resolve_recipe(Asked([name], "int4"))
        errors[name] = compress_layer(layer, partial(layers.run, 0), hidden, recipe).errors
    assert errors[method].keys() == errors["rtn"].keys()
    for linear, error in errors[method].items():
        assert error <= errors["rtn"][linear] * 1.001, linear
    assert sum(errors[method].values()) < 0.95 * sum(errors["rtn"].values())


def test_smoothing_does_not_change_what_is_pruned() -> None:
    model = tiny_model("Llama")
    layers, hidden = entered(model)
    zeros = []
    for methods in (["wanda"], ["smoothquant", "wanda"]):
        layer = loaded(layers, model, 0)
        recipe = resolve_recipe(Asked(methods, "int8"))
        compress_layer(layer, partial(layers.run, 0), hidden, recipe)
        zeros.append({name: linear.weight == 0 for name, linear in linears_of(layer).items()})
    for name, pruned in zeros[0].items():  # |w s| · ‖x / s‖ is |w| · ‖x‖
        assert float((pruned != zeros[1][name]).float().mean()) < 0.01
