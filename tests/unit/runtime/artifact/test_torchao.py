"""torchao's checkpoints are told apart by what their files say of themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.unit.runtime.artifact.quantized_checkpoints import write_checkpoint
from tests.unit.runtime.artifact.torchao_layouts import TORCHAO

from tidegate_runtime.artifact.check import check_path
from tidegate_runtime.artifact.checkpoint import Checkpoint, open_checkpoint
from tidegate_runtime.artifact.pack import as_values
from tidegate_runtime.errors import ModelRefused

LAYER = "model.layers.0.mlp.down_proj"
Stored = dict[str, torch.Tensor]


def opened(path: Path) -> Checkpoint:
    return open_checkpoint(check_path(path))


def rewrite(path: Path, change: Callable[[Stored, dict[str, str]], Any]) -> None:
    """Change the tensors and the metadata of a checkpoint's file."""
    file = path / "model.safetensors"
    stored = load_file(file)
    with safe_open(file, "pt") as opened_file:
        metadata = dict(opened_file.metadata())
    change(stored, metadata)
    save_file(stored, file, metadata)


def describe(metadata: dict[str, str], kind: str, **data: Any) -> None:
    metadata[f"{LAYER}.weight"] = json.dumps({"_type": kind, "_data": data})


@pytest.mark.parametrize("name", ["torchao int8", "torchao int4 tiles"])
def test_an_embedding_and_a_head_are_read_as_any_other_layer(name: str, tmp_path: Path) -> None:
    layout = TORCHAO[name]  # of 300 outputs, which tiles pad
    more = ("model.embed_tokens", "lm_head")
    model = write_checkpoint(tmp_path / "model", layout, more)
    found = {name: as_values(weight) for name, weight in opened(tmp_path / "model").tensors()}
    for layer in more:
        wanted = model.state_dict()[f"{layer}.weight"]
        torch.testing.assert_close(found[f"{layer}.weight"], wanted, rtol=1e-3, atol=2e-4)


def test_the_metadata_of_every_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "model"
    model = write_checkpoint(path, TORCHAO["torchao fp8 rows"])
    stored = load_file(path / "model.safetensors")
    with safe_open(path / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    (path / "model.safetensors").unlink()
    own = {name for name in stored if name.startswith(LAYER)}
    described = {f"{LAYER}.weight", "tensor_names"}
    save_file(
        {name: stored[name] for name in own},
        path / "model-00001-of-00002.safetensors",
        {name: metadata[name] for name in described},
    )
    save_file(
        {name: tensor for name, tensor in stored.items() if name not in own},
        path / "model-00002-of-00002.safetensors",
        {name: text for name, text in metadata.items() if name != f"{LAYER}.weight"},
    )
    found = dict(opened(path).tensors())
    assert torch.equal(as_values(found[f"{LAYER}.weight"]), model.get_submodule(LAYER).weight)


REFUSED: dict[str, tuple[Callable[[Stored, dict[str, str]], Any], str]] = {
    "a class that is not read": (
        lambda stored, metadata: describe(metadata, "Int4PlainInt32Tensor", shape=[64, 128]),
        f"has '{LAYER}.weight' as a torchao Int4PlainInt32Tensor, which is not read",
    ),
    "codes of no known width": (
        lambda stored, metadata: describe(metadata, "IntxUnpackedToInt8Tensor"),
        "as a torchao IntxUnpackedToInt8Tensor, which is not read",
    ),
    "a stack of experts": (
        lambda stored, metadata: metadata.update(
            {"model.layers.0.mlp.experts.down_proj": json.dumps({"_type": "Int8Tensor"})}
        ),
        "has 'model.layers.0.mlp.experts.down_proj' quantized by torchao",
    ),
    "no metadata": (lambda stored, metadata: metadata.clear(), "without the metadata"),
    "other names": (
        lambda stored, metadata: stored.update(
            {f"{LAYER}.weight_qdata": stored.pop(f"{LAYER}._weight_qdata")}
        ),
        f"lacks '{LAYER}._weight_qdata', where torchao keeps '{LAYER}.weight'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_torchao_writes_and_is_not_read_is_refused_by_name(name: str, tmp_path: Path) -> None:
    change, says = REFUSED[name]
    write_checkpoint(tmp_path / "model", TORCHAO["torchao int8"])
    rewrite(tmp_path / "model", change)
    with pytest.raises(ModelRefused) as caught:
        opened(tmp_path / "model")
    assert says in caught.value.message
    assert caught.value.reason == "UnsupportedModel"
    assert (
        "compressed-tensors, fp8, torchao, bitsandbytes: use one of these" in caught.value.message
    )


def test_tiles_of_another_maker_s_cards_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write_checkpoint(path, TORCHAO["torchao int4 tiles"])
    config = json.loads((path / "config.json").read_text())
    kind = config["quantization_config"]["quant_type"]["default"]
    kind["_data"]["int4_tile_packed_ntile"] = 8
    (path / "config.json").write_text(json.dumps(config))
    assert opened(path).stored_bits == 4
    kind["_data"]["int4_tile_packed_ntile"] = 16
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelRefused, match="tiles of 16 outputs"):
        opened(path)


def shorten(stored: Stored, part: str) -> None:
    stored[f"{LAYER}.{part}"] = stored[f"{LAYER}.{part}"][:-1].contiguous()


DAMAGES: dict[str, tuple[str, Callable[[Stored, dict[str, str]], Any], str]] = {
    "few codes": ("torchao int4 plain", lambda s, m: shorten(s, "_weight_qdata"), "has '_weight_q"),
    "few tiles": ("torchao int4 tiles", lambda s, m: shorten(s, "_weight_qdata"), "has '_weight_q"),
    "no groups": (
        "torchao int4 tiles 64",
        lambda s, m: shorten(s, "_weight_scale_and_zero"),
        "has 15 groups for 1024 padded inputs",
    ),
    "odd groups": (
        "torchao int4 plain",
        lambda s, m: shorten(s, "_weight_scale"),
        "has 3 groups for 128 inputs",
    ),
    "few zeros": (
        "torchao int4 plain",
        lambda s, m: shorten(s, "_weight_zero_point"),
        "has '_weight_zero_point' of the shape",
    ),
    "few scales": (
        "torchao int8",
        lambda s, m: shorten(s, "_weight_scale"),
        "of the shape [63, 1]",
    ),
    "no scales": (
        "torchao fp8 rows",
        lambda s, m: s.pop(f"{LAYER}._weight_scale"),
        "lacks '_weight_scale'",
    ),
    "large codes": (
        "torchao int4 unpacked",
        lambda s, m: s[f"{LAYER}._weight_qdata"].fill_(9),
        "has codes that 4 bits do not hold",
    ),
    "few inputs": (
        "torchao int4 scaled",
        lambda s, m: shorten(s, "_weight_act_pre_scale"),
        "has '_weight_act_pre_scale' of the shape [127]",
    ),
    "not described": (
        "torchao int8",
        lambda s, m: m.pop(f"{LAYER}.weight"),
        "that the metadata of its file does not name",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_layer_of_torchao_is_refused_by_name(name: str, tmp_path: Path) -> None:
    layout, damage, says = DAMAGES[name]
    write_checkpoint(tmp_path / "model", TORCHAO[layout])
    rewrite(tmp_path / "model", damage)
    with pytest.raises(ModelRefused) as caught:
        list(opened(tmp_path / "model").tensors())
    assert says in caught.value.message
    assert repr(LAYER) in caught.value.message
    assert caught.value.reason == "BrokenModel"
