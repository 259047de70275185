"""Where a model comes from, and which files may be in it."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.spec import ModelSource, SourceKind, check_files, parse_source

CONFIG: dict[str, dict[str, Any]] = {"config.json": {"model_type": "llama"}}


@pytest.mark.parametrize(
    ("text", "kind", "location"),
    [
        ("/models/smol", SourceKind.PATH, "/models/smol"),
        ("./smol.gguf", SourceKind.PATH, "./smol.gguf"),
        ("s3://bucket/some/prefix/", SourceKind.S3, "bucket/some/prefix"),
        ("hf://org/name", SourceKind.HUB, "org/name"),
    ],
)
def test_each_kind_of_source_is_recognised(text: str, kind: SourceKind, location: str) -> None:
    assert parse_source(text) == ModelSource(kind, location)


def test_only_the_hub_has_revisions() -> None:
    assert parse_source("hf://org/name", "abc").revision == "abc"
    with pytest.raises(ValueError, match="only hf:// sources have revisions"):
        parse_source("s3://bucket/prefix", "abc")


@pytest.mark.parametrize(
    "text", ["http://x/y", "s3://B/x", "s3://bucket", "hf://name", "hf://a/b/c"]
)
def test_anything_else_is_refused_by_its_value_with_the_known_kinds(text: str) -> None:
    with pytest.raises(ValueError, match=rf"{text}.*s3://bucket/prefix or hf://org/name"):
        parse_source(text)


@pytest.mark.parametrize(("text", "is_gguf"), [("/m/a.GGUF", True), ("/m/a", False)])
def test_a_gguf_file_is_known_by_its_name(text: str, is_gguf: bool) -> None:
    assert parse_source(text).is_gguf is is_gguf


@pytest.mark.parametrize(
    ("names", "configs"),
    [
        (["config.json", "model.safetensors", "tokenizer.json"], CONFIG),
        (["config.json", "model-00001-of-00002.safetensors", "pytorch_model.bin"], CONFIG),
        (["smol.gguf", "README.md"], {}),
    ],
)
def test_safetensors_or_one_gguf_file_may_be_served(
    names: list[str], configs: dict[str, dict[str, Any]]
) -> None:
    assert check_files(names, configs) is None


@pytest.mark.parametrize(
    ("names", "configs", "said"),
    [
        ([], {}, "no config.json and no .gguf"),
        (["config.json"], CONFIG, "no weights"),
        (["config.json", "pytorch_model.bin"], CONFIG, "pickled (pytorch_model.bin)"),
        (["config.json", "a.pt", "b.pkl"], CONFIG, "pickled (a.pt)"),
        (["a.gguf", "b.gguf"], {}, "2 GGUF files (a.gguf, b.gguf)"),
        (
            ["config.json", "m.safetensors"],
            {"config.json": {"auto_map": {"AutoModel": "m.M"}}},
            "never runs remote code",
        ),
        (
            ["config.json", "m.safetensors"],
            {**CONFIG, "tokenizer_config.json": {"auto_map": {}}},
            "its tokenizer_config.json has 'auto_map'",
        ),
    ],
)
def test_what_may_not_be_served_is_refused_with_the_reason(
    names: list[str], configs: dict[str, dict[str, Any]], said: str
) -> None:
    assert said in (check_files(names, configs) or "")
