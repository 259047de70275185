"""What a container is told by its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate_runtime.container.environment import replica_config
from tidegate_runtime.errors import ModelRefused

TOLD = {"TIDEGATE_MODEL_NAME": "smol", "HOME": "/home/tidegate"}


def test_without_a_word_it_serves_what_sagemaker_brings_on_its_port() -> None:
    config = replica_config(TOLD)
    assert (config.source, config.host, config.port) == ("/opt/ml/model", "0.0.0.0", 8080)
    assert (config.device, config.drain_s) == ("auto", 25.0)
    assert config.cache_dir == "/home/tidegate/.cache/tidegate"


def test_every_field_of_a_plan_can_be_said() -> None:
    config = replica_config(
        TOLD
        | {
            "TIDEGATE_SOURCE": "hf://org/smol",
            "TIDEGATE_PRECISION": "int4",
            "TIDEGATE_CONTEXT_TOKENS": "2048",
            "TIDEGATE_KV": "int8",
            "TIDEGATE_MAX_SEQUENCES": "32",
            "TIDEGATE_SPECULATION": '{"method": "ngram"}',
            "TIDEGATE_KV_SPILL": '{"memory": "1GiB"}',
            "SM_MODEL_DIR": "/elsewhere",
        }
    )
    assert (config.source, config.precision, config.kv) == ("hf://org/smol", "int4", "int8")
    assert (config.context_tokens, config.max_sequences) == (2048, 32)
    assert config.speculation is not None
    assert config.speculation.method == "ngram"
    assert config.kv_spill is not None
    assert config.kv_spill.memory == 1024**3


def test_the_model_directory_is_where_the_environment_says() -> None:
    assert replica_config(TOLD | {"SM_MODEL_DIR": "/models/a"}).source == "/models/a"


def test_what_is_no_artifact_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"TIDEGATE_MODEL_NAME: None .* no artifact; set it"):
        replica_config({"SM_MODEL_DIR": str(tmp_path)})


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("TIDEGATE_PRECISION", "int3", "'int3'"),
        ("TIDEGATE_CONTEXT_TOKENS", "many", "'many'"),
        ("TIDEGATE_MAX_SEQUENCES", "0", "'0'"),
        ("TIDEGATE_DEVICE", "tpu", "'tpu'"),
        ("TIDEGATE_KV", "", "'' says nothing"),
        ("TIDEGATE_SPECULATION", "ngram", "'ngram' is not JSON"),
        (
            "TIDEGATE_CONTEXT",
            "2048",
            "'2048' sets nothing; use one of TIDEGATE_ADAPTERS, TIDEGATE_CACHE_DIR",
        ),
        ("TIDEGATE_HOST", "127.0.0.1", "'127.0.0.1' sets nothing"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_variable(
    variable: str, value: str, named: str
) -> None:
    with pytest.raises(ModelRefused, match=f"{variable}: {named}"):
        replica_config(TOLD | {variable: value})


def test_every_variable_at_fault_is_named_at_once() -> None:
    bad = {"TIDEGATE_PRECISION": "int3", "TIDEGATE_KV": "int3"}
    with pytest.raises(ModelRefused, match=r"TIDEGATE_PRECISION.*TIDEGATE_KV"):
        replica_config(TOLD | bad)
