"""`up` and `destroy` of a file, through the Automation API.

The engine and the cloud are doubles; the file, the program, the components and the Automation API
are real.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.infra_engine.command_double import PulumiDouble
from tests.infra_engine.plugins import InventedCloud, arns, invented
from tests.infra_engine.stack_double import StackDouble
from tests.infra_engine.wire import Properties
from tests.unit.infra.arguments import ADMIN_KEY, PEPPER
from typer.testing import CliRunner

from tidegate_infra.cli import app, stack
from tidegate_infra.cli.file import read
from tidegate_infra.cli.program import OUTPUTS, Secrets
from tidegate_infra.cli.stack import OwnStack
from tidegate_infra.errors import StackFailed

ENDPOINT: dict[str, Any] = {
    "name": "smol",
    "mode": "serverless",
    "instance_type": "ml.g6.xlarge",
    "memory_mb": 12_288,
    "image": "123456789012.dkr.ecr.us-west-2.amazonaws.com/tidegate/runtime:0.1.0",
    "artifact_url": "s3://artifacts/smol/",
    "execution_role_arn": "arn:aws:iam::123456789012:role/execution",
    "subnet_ids": ["subnet-a"],
    "security_group_ids": ["sg-1"],
    "kms_key_arn": "arn:aws:kms:us-west-2:123456789012:key/1",
}


class Bench:
    """A file, and an account of doubles that it is applied to."""

    def __init__(self, directory: Path, cloud: InventedCloud, pulumi: PulumiDouble) -> None:
        self.cloud, self.pulumi = cloud, pulumi
        self.path = directory / "tidegate-infra.yaml"
        self.said: list[str] = []

    def stack(self, **changes: Any) -> OwnStack:
        document = {"stack": "test", "region": "us-west-2", "state": "state"}
        document["endpoints"] = [ENDPOINT | changes]
        self.path.write_text(json.dumps(document))
        return OwnStack(read(self.path), self.path.parent, self.pulumi)

    def up(self, **changes: Any) -> str:
        return self.stack(**changes).up(Secrets(), self.said.append).changes


def _outputs(kind: str, name: str, inputs: Properties) -> Properties:
    said = {"dnsName": f"{name}.example", "repositoryUrl": f"{name}.example", "versionId": "1"}
    return arns(kind, name, inputs) | said | {"endpointConfigName": name}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "correct horse")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    cloud = InventedCloud(invent=_outputs)
    with invented(cloud) as stub:
        pulumi = PulumiDouble(tmp_path / "kept", {"aws": stub, "aws-native": stub})
        yield Bench(tmp_path, cloud, pulumi)


def test_what_is_made_is_changed_and_taken_away_with_a_sentence_for_each_step(
    bench: Bench,
) -> None:
    assert bench.up().startswith("create ")
    assert "sagemaker InferenceComponent smol made" in bench.said
    assert bench.up() == "none; everything is as the file says"

    planned: list[str] = []
    assert bench.stack(max_copies=3).preview(Secrets(), planned.append) == "update 2"
    assert "appautoscaling Target smol will change" in planned
    bench.said.clear()
    bench.up(max_copies=3)
    assert "appautoscaling Target smol changed" in bench.said

    bench.said.clear()
    assert bench.stack().destroy(bench.said.append)
    assert "sagemaker Endpoint smol deleted" in bench.said
    assert (bench.cloud.kept, list(bench.pulumi.directory.glob("*.json"))) == ({}, [])
    assert not bench.stack().destroy(bench.said.append)


def test_a_preview_of_what_is_not_there_yet_makes_no_stack(bench: Bench) -> None:
    said = bench.stack().preview(Secrets(), bench.said.append)
    assert said == "everything will be made; there is no stack 'test' yet"
    assert not list(bench.pulumi.directory.glob("*.json"))


def test_in_the_end_a_platform_says_where_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = Path(__file__).parents[3] / "examples" / "infra" / "tidegate-infra.yaml"
    text = example.read_text().replace("s3://example-infra-state/tidegate", "state")
    bench.path.write_text(text)
    monkeypatch.setattr(stack, "PulumiCommand", lambda: bench.pulumi)
    monkeypatch.setenv("TIDEGATE_DATABASE_PASSWORD", "a" * 24)
    monkeypatch.setenv("TIDEGATE_PEPPER", PEPPER)
    monkeypatch.setenv("TIDEGATE_ADMIN_KEY", ADMIN_KEY)
    done = CliRunner().invoke(app, ["up", "--yes", "--file", str(bench.path)])
    assert done.exit_code == 0, done.stderr
    said = dict(re.findall(r"^(\w+Url|url)  (.+)$", done.stdout, flags=re.MULTILINE))
    assert said.keys() == OUTPUTS.keys()
    assert said["url"].startswith("https://")
    assert said["artifactsUrl"] == "s3://tidegate-artifacts-123456789012/models/"
    done = CliRunner().invoke(app, ["up", "--yes", "--json", "--file", str(bench.path)])
    assert json.loads(done.stdout)["outputs"].items() >= said.items()


def test_a_locked_stack_says_who_holds_it_and_the_command_that_cancels(bench: Bench) -> None:
    bench.up()
    kept = StackDouble.load(bench.pulumi.directory, "test")
    with kept.locked(), pytest.raises(StackFailed) as refused:
        bench.up(max_copies=3)
    assert "created by test@here" in str(refused.value)
    state = (bench.path.parent / "state").as_uri()
    command = "pulumi cancel --yes --stack organization/tidegate-infra/test"
    assert f"PULUMI_BACKEND_URL='{state}' {command}" in str(refused.value)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("ValidationException: the name is taken", "choose another `name`, or take it over: "),
        ("BucketNotEmpty: the bucket is not empty", "set `platform.protect: false`, then: "),
        ("DBSnapshotAlreadyExists: it is there", "aws rds delete-db-snapshot"),
        ("a secret is already scheduled for deletion", "--force-delete-without-recovery"),
        ("ExpiredToken: of yesterday", "look who you are: aws sts get-caller-identity"),
        ("the moon is full", "see what would be done: tidegate infra plan"),
    ],
)
def test_what_the_cloud_refuses_ends_with_what_to_type(
    bench: Bench, said: str, remedy: str
) -> None:
    def refuse(step: str, kind: str, name: str) -> None:
        if kind.endswith(":InferenceComponent"):
            raise ValueError(said)

    bench.cloud.before = refuse
    with pytest.raises(StackFailed) as refused:
        bench.up(scaled_by="tidegate")
    assert said in str(refused.value)
    assert remedy in str(refused.value)
    assert "sagemaker InferenceComponent smol failed" in bench.said


def test_the_state_is_sealed_with_something_that_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE")
    with pytest.raises(StackFailed, match="export PULUMI_CONFIG_PASSPHRASE=…"):
        bench.up()
    assert bench.pulumi.called == []


def test_nothing_is_changed_before_somebody_has_said_yes_and_then_the_plan_is_empty(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.stack()
    monkeypatch.setattr(stack, "PulumiCommand", lambda: bench.pulumi)
    for command in ("up", "destroy"):
        done = CliRunner().invoke(app, [command, "--file", str(bench.path)])
        assert done.exit_code == 1
        assert "say --yes" in done.stderr
    assert bench.pulumi.called == []
    done = CliRunner().invoke(app, ["up", "--yes", "--file", str(bench.path)])
    assert (done.exit_code, done.stdout.splitlines()[-1][:19]) == (0, "changes      create")
    done = CliRunner().invoke(app, ["plan", "--file", str(bench.path)])
    assert done.stdout.endswith("changes      none; everything is as the file says\n")


def test_without_credentials_the_next_command_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.stack()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setattr(stack, "PulumiCommand", lambda: bench.pulumi)
    done = CliRunner().invoke(app, ["up", "--yes", "--file", str(bench.path)])
    assert "there are no AWS credentials; give some: aws configure" in done.stderr
    assert bench.pulumi.called == []
