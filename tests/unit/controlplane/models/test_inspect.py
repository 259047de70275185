"""A model is read before it is planned for: what it is, and why it may not be served."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors.numpy import save_file
from tests.unit.controlplane.models.conftest import MakeDirectory, MakeGguf

from tidegate.protocol.resources import ModelFacts
from tidegate.spec import ModelSpec, Precision, Task
from tidegate_controlplane.domain.footprint import read_bytes, weights_bytes
from tidegate_controlplane.errors import Invalid
from tidegate_controlplane.models.inspect import Inspected, inspect
from tidegate_controlplane.models.vocabulary import tokens_digest


async def unknown(digest: str) -> None:
    """Nothing was read before."""


async def inspected(source: Path | str, task: str = "generate") -> Inspected:
    return await inspect(ModelSpec(source=str(source), task=Task(task)), unknown)


async def refusal(source: Path | str, task: str = "generate") -> str:
    with pytest.raises(Invalid) as caught:
        await inspected(source, task)
    (issue,) = caught.value.issues
    assert (issue.field, issue.value) == ("model.source", str(source))
    assert caught.value.param == "model.source"
    return issue.message


# --- what it is -----------------------------------------------------------------------------------


async def test_a_directory_tells_its_facts(directory: MakeDirectory) -> None:
    path = directory()
    found = await inspected(path)
    assert found.revision is None
    assert found.facts == ModelFacts(
        format="safetensors",
        architecture="LlamaForCausalLM",
        digest=found.facts.digest,
        parameters=646,
        weights_bytes=(path / "model.safetensors").stat().st_size,
        context_tokens=128,
        layers=2,
        kv_heads=2,
        head_dim=16,
        vocabulary=10,
        embedding_parameters=640,
        tied=True,
        stored_bits=16,
    )
    assert found.facts.digest.startswith("sha256:")


async def test_a_gguf_file_tells_its_facts(gguf: MakeGguf) -> None:
    path = gguf()
    found = await inspected(path)
    assert found.facts == ModelFacts(
        format="gguf",
        architecture="llama",
        digest=found.facts.digest,
        parameters=640,
        weights_bytes=path.stat().st_size,
        context_tokens=256,
        layers=3,
        kv_heads=2,
        head_dim=16,
        vocabulary=10,
        embedding_parameters=640,
        tokens_digest=tokens_digest(enumerate(f"t{n}" for n in range(10))),
        tied=True,
        stored_bits=32,
    )


async def test_a_model_with_a_layer_for_its_head_is_not_tied(directory: MakeDirectory) -> None:
    path = directory()
    head = {"lm_head.weight": np.zeros((10, 64), dtype=np.float32)}
    save_file(head, path / "head.safetensors", metadata={"format": "pt"})
    assert not (await inspected(path)).facts.tied


async def test_the_bits_of_a_gguf_file_are_those_of_most_of_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "four.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_head_count(4)
    writer.add_token_list([f"t{index}" for index in range(10)])
    writer.add_tensor("output.weight", np.zeros((10, 64), dtype=np.float32))
    four = GGMLQuantizationType.Q4_1
    writer.add_tensor(
        "blk.0.ffn_up.weight", np.zeros((64, 64 // 32 * 20), dtype=np.uint8), raw_dtype=four
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    facts = (await inspected(path)).facts
    assert (facts.stored_bits, facts.tied) == (4, False)


def manifest(path: Path, **changes: Any) -> Path:
    """Make an artifact of a directory."""
    (path / "model.safetensors").rename(path / "weights.safetensors")
    made = {
        "format": 1,
        "packing": 1,
        "precision": "int4",
        "tied": True,
        "weights_bytes": 77,
        "linears": {"up": {"bits": 4, "out": 8, "in": 32}},
        **changes,
    }
    (path / "manifest.json").write_text(json.dumps(made))
    return path


async def test_an_artifact_tells_its_facts_and_the_precision_that_it_stays_in(
    directory: MakeDirectory,
) -> None:
    facts = (await inspected(manifest(directory()))).facts
    assert (facts.precision, facts.tied, facts.weights_bytes) == ("int4", True, 77)
    assert facts.parameters == 646 + 8 * 32
    assert (facts.layers, facts.format) == (2, "safetensors")


async def test_an_artifact_made_in_another_way_has_another_digest(directory: MakeDirectory) -> None:
    one, two = manifest(directory("one")), manifest(directory("two"), compression={"methods": []})
    assert (await inspected(one)).facts.digest != (await inspected(two)).facts.digest


async def test_a_manifest_that_does_not_describe_its_artifact_is_refused(
    directory: MakeDirectory,
) -> None:
    assert "build it again" in await refusal(manifest(directory("one"), linears=None))
    path = manifest(directory("two"))
    (path / "weights.safetensors").rename(path / "model.safetensors")
    assert "no weights.safetensors; build it again" in await refusal(path)


async def test_a_directory_with_one_gguf_file_is_that_file(gguf: MakeGguf) -> None:
    found = await inspected(gguf("folder/tiny.gguf").parent)
    assert found.facts.format == "gguf"


async def test_the_language_part_of_a_model_of_several_parts_is_what_counts(
    directory: MakeDirectory,
) -> None:
    text = {
        "num_hidden_layers": 5,
        "num_attention_heads": 2,
        "hidden_size": 8,
        "max_position_embeddings": 77,
        "vocab_size": 3,
    }
    facts = (await inspected(directory(text_config=text))).facts
    assert (facts.architecture, facts.layers, facts.head_dim) == ("LlamaForCausalLM", 5, 4)
    assert (facts.kv_heads, facts.context_tokens) == (2, 77)


async def test_an_embedding_model_is_declared_as_one(directory: MakeDirectory) -> None:
    path = directory(architectures=["BertModel"])
    assert (await inspected(path, "embed")).facts.architecture == "BertModel"
    assert "set model.task to 'embed'" in await refusal(path)
    assert "set model.task to 'embed'" in await refusal(path, "rerank")


async def test_a_cross_encoder_is_declared_as_one(directory: MakeDirectory) -> None:
    path = directory(architectures=["BertForSequenceClassification"])
    assert (await inspected(path, "rerank")).facts.layers == 2
    assert "set model.task to 'rerank'" in await refusal(path, "embed")
    assert "set model.task to 'rerank'" in await refusal(path)


async def test_of_a_mixture_each_token_reads_the_experts_it_uses(directory: MakeDirectory) -> None:
    path = directory(num_local_experts=4, num_experts_per_tok=1)
    experts = {f"layers.0.mlp.experts.{n}.w1": np.zeros((32, 64), np.float32) for n in range(4)}
    save_file({"embed": np.zeros((10, 64), np.float32), **experts}, path / "model.safetensors")
    facts = (await inspected(path)).facts
    assert facts.parameters == 640 + 4 * 2048
    assert facts.idle_parameters == 3 * 2048
    precision = Precision.INT8
    read, held = read_bytes(facts, precision), weights_bytes(facts, precision)
    assert held - read == int(3 * 2048 * 8.5 / 8)


async def test_a_gguf_file_cannot_be_an_embedding_model(gguf: MakeGguf) -> None:
    assert "read from safetensors" in await refusal(gguf(), "embed")


# --- the digest -----------------------------------------------------------------------------------


async def test_a_changed_readme_keeps_the_digest(directory: MakeDirectory) -> None:
    path = directory()
    before = await inspected(path)
    (path / "README.md").write_text("a better word about the same model")
    assert (await inspected(path)).facts.digest == before.facts.digest


async def test_changed_weights_of_the_same_size_change_the_digest(
    directory: MakeDirectory,
) -> None:
    one, other = await inspected(directory("one")), await inspected(directory("other", fill=1.0))
    assert one.facts.weights_bytes == other.facts.weights_bytes
    assert one.facts.digest != other.facts.digest


async def test_a_changed_config_changes_the_digest(directory: MakeDirectory) -> None:
    path = directory()
    before = await inspected(path)
    (path / "config.json").write_text((path / "config.json").read_text() + "\n")
    assert (await inspected(path)).facts.digest != before.facts.digest


async def test_the_digest_does_not_depend_on_where_the_files_lie(directory: MakeDirectory) -> None:
    one, other = await inspected(directory("one")), await inspected(directory("other"))
    assert one.facts == other.facts


async def test_headers_are_not_read_again_for_a_digest_that_is_known(
    directory: MakeDirectory,
) -> None:
    path = directory()
    facts = (await inspected(path)).facts.model_copy(update={"layers": 99})
    asked = []

    async def known(digest: str) -> ModelFacts:
        asked.append(digest)
        return facts

    assert (await inspect(ModelSpec(source=str(path)), known)).facts.layers == 99
    assert asked == [facts.digest]


# --- why not --------------------------------------------------------------------------------------


async def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert f"{str(missing)!r} does not exist" in await refusal(missing)


@pytest.mark.parametrize("path", ["models/smol", "~/smol", "~nobody-here/smol", "./x.gguf"])
async def test_a_relative_path_is_refused_since_it_means_another_place_to_each(path: str) -> None:
    assert "is a relative path; give an absolute one" in await refusal(path)


@pytest.mark.parametrize("path", ["/models/\0smol", "/" + "x" * 2000])
async def test_a_path_that_cannot_be_one_does_not_exist(path: str) -> None:
    assert "does not exist" in await refusal(path)


async def test_a_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"x")
    assert "neither a directory nor a .gguf file" in await refusal(path)


async def test_a_pipe_named_like_a_model_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "endless.gguf"
    os.mkfifo(path)
    assert "neither a directory nor a .gguf file" in await refusal(path)


async def test_an_empty_directory_is_not_a_model(tmp_path: Path) -> None:
    assert "no config.json and no .gguf file" in await refusal(tmp_path)


async def test_a_config_without_weights_is_not_a_model(directory: MakeDirectory) -> None:
    path = directory()
    (path / "model.safetensors").unlink()
    assert "a config.json but no weights" in await refusal(path)


async def test_pickled_weights_are_refused_with_the_way_to_convert_them(
    directory: MakeDirectory,
) -> None:
    path = directory()
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    message = await refusal(path)
    assert "weights are pickled (pytorch_model.bin)" in message
    assert "safe_serialization=True" in message


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
async def test_remote_code_is_refused(directory: MakeDirectory, name: str) -> None:
    path = directory()
    (path / name).write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}}))
    assert f"its {name} has 'auto_map'" in await refusal(path)


async def test_two_gguf_files_want_one_to_be_named(gguf: MakeGguf) -> None:
    path = gguf("folder/a.gguf").parent
    gguf("folder/b.gguf")
    assert "2 GGUF files (a.gguf, b.gguf); name the one" in await refusal(path)


@pytest.mark.parametrize(
    "text", ["{", "[1]", "\x00", "[" * 100_000, '{"text_config": 3}', '{"architectures": 7}']
)
async def test_a_config_that_is_not_one_is_refused(directory: MakeDirectory, text: str) -> None:
    path = directory()
    (path / "config.json").write_text(text)
    assert "its config.json" in await refusal(path)


@pytest.mark.parametrize(
    "values",
    [
        {"num_attention_heads": 0},
        {"num_attention_heads": -4},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": None},
        {"hidden_size": "many"},
        {"vocab_size": float("inf")},
        {"max_position_embeddings": None},
    ],
    ids=str,
)
async def test_a_config_with_an_impossible_number_is_refused(
    directory: MakeDirectory, values: dict[str, Any]
) -> None:
    message = await refusal(directory(**values))
    assert "does not describe a transformer that can be served" in message


def header(content: Any) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "shorter than its header"),
        (b"PK\x03\x04 not at all", "its header would be"),
        (struct.pack("<Q", 50) + b"{", "is not a safetensors file"),
        (header([1, 2]), "is not a safetensors file"),
        (header({"w": {"dtype": "F32"}}), "is not a safetensors file"),
        (header({"w": {"shape": ["a"], "data_offsets": [0, 0]}}), "is not a safetensors file"),
        (header({"w": {"shape": [1], "data_offsets": [0]}}), "is not a safetensors file"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "is not a safetensors file"),
        (header({}), "its parameters is 0"),
        (header({"w": {"shape": [-1, 5], "data_offsets": [0, 0]}}), "its parameters is -5"),
        (
            header({"w": {"shape": [1], "data_offsets": [0, 4]}}) + b"xyz",
            "and its header describes",
        ),
    ],
    ids=range(11),
)
async def test_weights_with_a_corrupt_header_are_refused(
    directory: MakeDirectory, content: bytes, said: str
) -> None:
    path = directory()
    (path / "model.safetensors").write_bytes(content)
    assert said in await refusal(path)


@pytest.mark.parametrize("change", [-1, -2000, 1], ids=["a byte less", "cut in two", "a byte more"])
async def test_weights_that_are_not_whole_are_refused(
    directory: MakeDirectory, change: int
) -> None:
    path = directory()
    weights = path / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:change] if change < 0 else content + b"x" * change)
    said = await refusal(path)
    assert f"'model.safetensors' is not whole: it has {len(content) + change} bytes" in said
    assert f"describes {len(content)}; copy it again" in said


async def test_a_corrupt_gguf_file_is_refused(gguf: MakeGguf) -> None:
    path = gguf()
    whole = path.read_bytes()
    for content in (b"", b"GGUF", b"PK\x03\x04" * 20, whole[:40], whole[: len(whole) // 2]):
        path.write_bytes(content)
        said = await refusal(path)
        assert "is not a GGUF file that can be read" in said
        assert f"more than {len(content)} bytes" in said


async def test_a_gguf_file_without_heads_is_refused(gguf: MakeGguf) -> None:
    assert "is not a GGUF file that can be read" in await refusal(gguf(heads=0))


async def test_a_file_name_that_is_not_utf_8_does_no_harm(directory: MakeDirectory) -> None:
    path = directory()
    (path / os.fsdecode(b"odd-\xff.txt")).write_text("x")
    assert (await inspected(path)).facts.parameters == 646
