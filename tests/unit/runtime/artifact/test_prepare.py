"""How a replica comes by its artifact, and what it says when it does not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runtime.artifact.conftest import MakeArtifact, fill_artifact

from tidegate.local.model_files import local_digest
from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.artifact import prepare as preparing
from tidegate_runtime.artifact.prepare import prepare
from tidegate_runtime.artifact.store import ArtifactStore, artifact_key
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable


def config(cache: Path, **fields: Any) -> ReplicaConfig:
    return ReplicaConfig.model_validate(
        {
            "replica_id": "r",
            "model_name": "m",
            "source": "/models/tiny",
            "status_path": None,
            "cache_dir": str(cache),
            **fields,
        }
    )


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A child that runs this program instead of a build."""

    def says(program: str) -> None:
        monkeypatch.setattr(preparing, "BUILDER", (sys.executable, "-c", program))

    return says


def test_a_planned_artifact_is_found_by_the_plan_s_digest_alone(tmp_path: Path) -> None:
    key = artifact_key("sha256:one", "int8")
    ArtifactStore(tmp_path).publish(key, fill_artifact)
    wanted = config(tmp_path, source_digest="sha256:one", precision="int8")
    held = prepare(wanted, lambda line: pytest.fail(f"built: {line}"))
    assert held.artifact.root.name == key
    held.close()


def test_what_is_not_there_is_built_and_its_progress_told(tmp_path: Path, builder: Any) -> None:
    store = ArtifactStore(tmp_path)
    path = store.publish("made", fill_artifact)
    answer = json.dumps({"artifact": str(path)})
    builder(f"import sys; print('half', file=sys.stderr); print({answer!r})")
    told: list[str] = []
    held = prepare(config(tmp_path, precision="int8"), told.append)
    assert (held.artifact.root, told) == (path, ["half"])
    held.close()


@pytest.mark.parametrize(("status", "kind"), [(3, ModelRefused), (1, ReplicaUnavailable)])
def test_the_refusal_of_a_build_is_that_of_the_replica(
    tmp_path: Path, builder: Any, status: int, kind: type[Exception]
) -> None:
    error = json.dumps({"error": {"reason": "QualityBound", "message": "too bad"}})
    builder(f"import sys; print({error!r}); sys.exit({status})")
    with pytest.raises(kind, match="too bad") as raised:
        prepare(config(tmp_path), lambda line: None)
    assert raised.value.reason == "QualityBound"  # type: ignore[attr-defined]


def test_a_build_that_dies_is_told_with_its_last_words(tmp_path: Path, builder: Any) -> None:
    builder(
        "import os, sys; print('packing', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"
    )
    with pytest.raises(ReplicaUnavailable, match="signal 9; its last words: packing"):
        prepare(config(tmp_path), lambda line: None)


def test_an_artifact_is_its_own_source(artifact: MakeArtifact, tmp_path: Path) -> None:
    root = artifact()
    held = prepare(config(tmp_path, source=str(root)), lambda line: None)
    assert held.artifact.root == root
    held.close()
    with pytest.raises(ModelRefused, match="is in int8, and int4 was asked for"):
        prepare(config(tmp_path, source=str(root), precision="int4"), lambda line: None)
    with pytest.raises(ModelRefused, match=r"built from sha256:one.*made for sha256:two"):
        prepare(config(tmp_path, source=str(root), source_digest="sha256:two"), lambda line: None)


@pytest.mark.parametrize("wanted", ["sha256:one", None])
def test_an_artifact_is_the_planned_one_by_its_source_or_by_its_own_files(
    artifact: MakeArtifact, tmp_path: Path, wanted: str | None
) -> None:
    root = artifact()
    digest = wanted or local_digest(root)
    prepare(config(tmp_path, source=str(root), source_digest=digest), print).close()
    (root / "manifest.json").write_text((root / "manifest.json").read_text() + " ")
    assert local_digest(root) != digest
    if wanted is None:
        with pytest.raises(ModelRefused, match="deploy it again") as refused:
            prepare(config(tmp_path, source=str(root), source_digest=digest), print)
        assert refused.value.reason == "SourceChanged"
