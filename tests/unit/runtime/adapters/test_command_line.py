"""Adapters of a replica that runs alone."""

from __future__ import annotations

import pytest

from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.server.__main__ import alone, parser


def config(*arguments: str) -> ReplicaConfig:
    return alone(parser().parse_args(["--artifact", "/x", "--model-name", "m", *arguments]))


def test_each_has_a_name_and_a_source() -> None:
    given = config("--adapter", "calm=/a", "--adapter", "loud=s3://b/c=d", "--max-adapters", "3")
    assert given.adapters == {"calm": "/a", "loud": "s3://b/c=d"}
    assert given.max_adapters == 3
    assert config().adapters == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["calm"], "'calm' is not NAME=SOURCE"),
        (["calm=/a", "calm=/b"], "'calm=/b' is not NAME=SOURCE with a name of its own"),
        (["a:b=/a"], r"adapters\.a:b"),
        (["a/b=/a"], r"adapters\.a/b"),
    ],
)
def test_what_is_none_is_refused(given: list[str], said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        config(*(part for text in given for part in ("--adapter", text)))
