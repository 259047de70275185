import json
from pathlib import Path
from typing import Any

import pytest

from tidegate_runtime.artifact.check import check_path
from tidegate_runtime.artifact.wanted import is_wanted
from tidegate_runtime.errors import ModelRefused


def make_model(root: Path, *names: str, config: dict[str, Any] | None = None) -> Path:
    root.mkdir(exist_ok=True)
    if config is not None:
        (root / "config.json").write_text(json.dumps(config))
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"GGUF" if name.endswith(".gguf") else b"x")
    return root


def refusal(path: Path) -> ModelRefused:
    with pytest.raises(ModelRefused) as refused:
        check_path(path)
    assert str(path) in refused.value.message
    return refused.value


def test_a_directory_with_config_and_safetensors_is_a_model(tmp_path: Path) -> None:
    root = make_model(tmp_path / "m", "model.safetensors", config={})
    assert check_path(root).gguf is None


def test_a_directory_with_one_gguf_file_is_that_file(tmp_path: Path) -> None:
    root = make_model(tmp_path / "m", "weights.gguf")
    assert check_path(root).gguf == root / "weights.gguf"


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing").reason == "SourceNotFound"


def test_an_empty_directory_is_not_a_model(tmp_path: Path) -> None:
    assert refusal(make_model(tmp_path / "m")).reason == "NotAModel"


def test_pickled_weights_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    refused = refusal(make_model(tmp_path / "m", "pytorch_model.bin", config={}))
    assert refused.reason == "PickledWeights"
    assert "safetensors" in refused.message


def test_a_pickled_file_is_refused(tmp_path: Path) -> None:
    assert refusal(make_model(tmp_path / "m", "a.pt") / "a.pt").reason == "PickledWeights"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused_wherever_it_is_asked_for(tmp_path: Path, name: str) -> None:
    root = make_model(tmp_path / "m", "model.safetensors", config={})
    (root / name).write_text(json.dumps({"auto_map": {"AutoModel": "evil.Evil"}}))
    assert refusal(root).reason == "RemoteCode"


def test_a_config_that_is_not_json_is_not_a_model(tmp_path: Path) -> None:
    root = make_model(tmp_path / "m", "model.safetensors", "config.json")
    with pytest.raises(ModelRefused, match="not JSON"):
        check_path(root)


def test_a_file_that_only_ends_in_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fake.gguf"
    path.write_bytes(b"not a model")
    assert refusal(path).reason == "NotAModel"


def test_a_model_one_folder_down_is_refused_with_the_remedy(tmp_path: Path) -> None:
    root = make_model(tmp_path / "m", "inner/model.safetensors", "inner/config.json")
    (root / "inner" / "config.json").write_text("{}")
    assert "name the directory" in refusal(root).message


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
def test_what_the_loader_needs_is_fetched(name: str) -> None:
    assert is_wanted(name)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling.py", "onnx/config.json", "a.pt"])
def test_code_pickles_and_other_formats_are_not_fetched(name: str) -> None:
    assert not is_wanted(name)
