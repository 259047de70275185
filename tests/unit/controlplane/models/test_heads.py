"""Heads that a declaration names are looked for before a replica reads them."""

from __future__ import annotations

from pathlib import Path

from tidegate.spec import DeploymentSpec
from tidegate_controlplane.models.heads import missing_heads


def spec(heads: Path, **parts: object) -> DeploymentSpec:
    speculation = {"method": "hydra", "heads": str(heads)}
    fields = {"name": "smol", "model": "/m", "mode": "serverless"}
    return DeploymentSpec.model_validate(
        {**fields, "runtime": {"speculation": speculation}, **parts}
    )


def test_a_directory_without_heads_is_refused_with_what_makes_them(tmp_path: Path) -> None:
    (issue,) = missing_heads(spec(tmp_path))
    assert (issue.field, issue.value) == ("runtime.speculation.heads", str(tmp_path))
    assert "there is no heads.json" in issue.message
    assert "tidegate distill" in issue.message
    (tmp_path / "heads.json").write_text("{}")
    assert list(missing_heads(spec(tmp_path))) == []


def test_what_lies_on_other_machines_is_not_looked_for(tmp_path: Path) -> None:
    assert list(missing_heads(spec(tmp_path, hardware={"provisioner": "ray"}))) == []
