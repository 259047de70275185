"""The file of `tidegate infra`, what it plans, and the program that it stands for."""

from __future__ import annotations

import json
import os
import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from tests.unit.infra.arguments import ADMIN_KEY, PEPPER
from typer.testing import CliRunner, Result

from tidegate.spec import load
from tidegate_infra.cli import app
from tidegate_infra.cli.export import export
from tidegate_infra.cli.file import InfraFile, PlatformSection, read
from tidegate_infra.cli.plan import resources_of
from tidegate_infra.cli.program import Secrets, rails_of
from tidegate_infra.cli.source import source
from tidegate_infra.errors import FileRefused, StackFailed
from tidegate_infra.graph.offline import Account, declared_by
from tidegate_infra.policy.declared import Declared

EXAMPLE = Path(__file__).parents[3] / "examples" / "infra" / "tidegate-infra.yaml"
ALONE = {
    "image": "123456789012.dkr.ecr.us-west-2.amazonaws.com/tidegate/runtime:0.1.0",
    "artifact_url": "s3://artifacts/smol/",
    "execution_role_arn": "arn:aws:iam::123456789012:role/execution",
    "subnet_ids": ["subnet-a"],
    "security_group_ids": ["sg-1"],
    "kms_key_arn": "arn:aws:kms:us-west-2:123456789012:key/1",
}


def example() -> dict[str, Any]:
    return load(EXAMPLE.read_text())


def written(directory: Path, document: dict[str, Any]) -> Path:
    path = directory / "tidegate-infra.yaml"
    path.write_text(json.dumps(document))  # which is YAML, too
    return path


def small(**endpoint: Any) -> dict[str, Any]:
    """One endpoint, without a platform."""
    told = {"name": "smol", "mode": "serverless", "instance_type": "ml.g6.xlarge"}
    told |= {"memory_mb": 12_288, **ALONE, **endpoint}
    return {"stack": "test", "region": "us-west-2", "state": "state", "endpoints": [told]}


def refusals(directory: Path, document: dict[str, Any]) -> list[str]:
    """Every line that is said of a document, without the file's name."""
    path = written(directory, document)
    with pytest.raises(FileRefused) as refused:
        read(path)
    return [line.removeprefix(f"{path}: ") for line in str(refused.value).splitlines()]


@cache
def of_the_example() -> tuple[InfraFile, tuple[Declared, ...]]:
    file = read(EXAMPLE)
    return file, tuple(resources_of(file))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def nothing_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PULUMI_HOME", raising=False)
    yield


def test_an_unknown_field_is_refused_by_name_with_its_value_and_the_nearest(tmp_path: Path) -> None:
    document = example()
    document["platform"]["regoin"] = "x"
    document["endpoints"][0]["max_copy"] = 3
    assert refusals(tmp_path, document) == [
        "platform.regoin: unknown field; known fields: " + known() + ", got 'x'",
        "endpoints.0.max_copy: unknown field; did you mean 'max_copies'?, got 3",
    ]


def known() -> str:
    return ", ".join(sorted(PlatformSection.model_fields))


def test_what_a_component_refuses_is_said_by_its_place_in_the_file(tmp_path: Path) -> None:
    document = example()
    document["platform"]["account_id"] = "1"
    document["endpoints"][0]["min_copies"] = 1
    assert refusals(tmp_path, document) == [
        "platform.account_id: must be 12 digits; `aws sts get-caller-identity` prints them, "
        "got '1'",
        "endpoints.0.min_copies: mode serverless rests at 0; remove it, or take mode realtime, "
        "got 1",
    ]


def test_a_number_is_no_text_nor_text_a_number_and_a_secret_is_no_field(tmp_path: Path) -> None:
    document = example()
    document["platform"] |= {"account_id": 123456789012, "pepper": "x"}
    document["endpoints"][0]["memory_mb"] = "12288"
    number, secret, text = refusals(tmp_path, document)
    assert number.startswith("platform.account_id: must be a text; put it in quotes, got 1234")
    assert secret.startswith("platform.pepper: unknown field")
    assert text == "endpoints.0.memory_mb: Input should be a valid integer, got '12288'"


def test_an_endpoint_without_a_platform_says_where_it_stands(tmp_path: Path) -> None:
    document = small()
    del document["endpoints"][0]["kms_key_arn"]
    assert refusals(tmp_path, document) == [
        "endpoints.0.kms_key_arn: this field is required; there is no platform to take it from"
    ]
    assert read(written(tmp_path, small())).platform is None


def test_two_endpoints_have_two_names(tmp_path: Path) -> None:
    document = small()
    document["endpoints"] *= 2
    assert refusals(tmp_path, document) == ["endpoints: give each a name of its own, got 'smol'"]


def test_an_endpoint_beside_a_platform_bears_its_name_and_stands_in_its_network(
    tmp_path: Path,
) -> None:
    document = example()
    document["platform"]["batch_hosts"] = False
    document["endpoints"] = [
        {"name": "rerank", "mode": "batch", "instance_type": "g6.xlarge", "memory_mb": 8192}
    ]
    assert refusals(tmp_path, document) == [
        "endpoints.0.name: must begin with 'tidegate-': the roles of the platform end at its name, "
        "got 'rerank'",
        "platform.batch_hosts: must be true for an endpoint of mode batch, whose hosts stand in "
        "its network, got False",
    ]


def test_a_file_that_is_not_there_is_named() -> None:
    done = run("plan", "--file", "nowhere.yaml")
    assert done.exit_code == 1
    assert "nowhere.yaml: cannot be read" in done.stderr
    assert "name another with --file" in done.stderr


@pytest.mark.usefixtures("nothing_on_the_path")
def test_the_plan_of_the_example_rests_without_a_gpu_and_keeps_the_guard_rails() -> None:
    done = run("plan", "--file", str(EXAMPLE))
    assert done.exit_code == 0, done.output
    assert "tidegate:aws:Platform tidegate" in done.stdout
    assert "EndpointConfig tidegate-rerank  (0 to 2 instances, at rest 0 ×" in done.stdout
    assert "at rest  0 × ml.g6.xlarge: 0.00 USD a month" in done.stdout
    assert "guard rails  hold" in done.stdout
    assert "the graph alone: there is no `pulumi` on the PATH; install it" in done.stdout


def test_a_copy_that_is_always_there_has_its_price(tmp_path: Path) -> None:
    file = written(tmp_path, small(mode="realtime", min_copies=1))
    done = run("plan", "--file", str(file))
    assert "at rest  1 × ml.g6.xlarge: 822.49 USD a month" in done.stdout
    assert "guard rails  hold" in done.stdout
    facts = json.loads(run("plan", "--json", "--file", str(file)).stdout)
    assert [each["usd_per_month"] for each in facts["at_rest"]] == [822.49]
    assert "aws-native:sagemaker:EndpointConfig" in {each["type"] for each in facts["resources"]}
    assert (facts["findings"], facts["told"]) == ([], ["guard rails  hold"])


def test_what_breaks_a_guard_rail_is_said_and_is_the_exit_status(tmp_path: Path) -> None:
    done = run("plan", "--file", str(written(tmp_path, small(kms_key_arn=""))))
    assert done.exit_code == 1
    assert "encryption: " in done.stdout
    assert "guard rails  hold" not in done.stdout
    done = run("plan", "--json", "--file", str(written(tmp_path, small(kms_key_arn=""))))
    assert done.exit_code == 1
    assert {each["rail"] for each in json.loads(done.stdout)["findings"]} == {"encryption"}


def test_an_error_is_json_where_json_is_asked_for() -> None:
    done = run("plan", "--json", "--file", "nowhere.yaml")
    assert done.exit_code == 1
    assert json.loads(done.stderr)["error"]["message"].startswith("nowhere.yaml: cannot be read")


def test_a_platform_faces_the_internet_only_where_the_file_says_so(tmp_path: Path) -> None:
    document = example()
    opened = {"internet": True, "internal": False, "allowed_cidrs": ["203.0.113.0/24"]}
    document["platform"] |= opened
    file = read(written(tmp_path, document))
    assert rails_of(file).public
    assert "with guard(GuardRails(public=True)):" in source(file)
    assert not rails_of(read(EXAMPLE)).public


@pytest.mark.usefixtures("nothing_on_the_path")
@pytest.mark.parametrize("command", ["up", "destroy"])
def test_without_the_pulumi_command_nothing_is_changed_and_the_remedy_is_said(command: str) -> None:
    done = run(command, "--file", str(EXAMPLE), "--yes")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: there is no `pulumi` on the PATH; install it")


def test_the_exported_program_declares_what_the_plan_shows(tmp_path: Path) -> None:
    file, planned = of_the_example()
    export(file, EXAMPLE.parent, tmp_path / "out")
    text = (tmp_path / "out" / "__main__.py").read_text()
    assert max(map(len, text.splitlines())) <= 120

    def program() -> None:
        said = {f"offline:{name}": "" for name in ("databasePassword", "pepper", "adminKey")}
        pulumi.runtime.set_all_config(said, list(said))
        runpy.run_path(str(tmp_path / "out" / "__main__.py"), run_name="__main__")

    assert {str(each): each for each in declared_by(program, account())} == {
        str(each): each for each in planned
    }


def account() -> Account:
    return Account("123456789012", "us-west-2")


def test_a_secret_that_is_missing_comes_with_the_command_that_makes_it() -> None:
    file, told = of_the_example()[0], dict[str, str]()
    for name, value, remedy in (
        ("TIDEGATE_DATABASE_PASSWORD", "correcthorsebattery", "openssl rand -hex 24"),
        ("TIDEGATE_PEPPER", PEPPER, "openssl rand -base64 32"),
        ("TIDEGATE_ADMIN_KEY", ADMIN_KEY, "tidegate keys new"),
    ):
        with pytest.raises(StackFailed, match=rf"^{name}: .*export {name}=\$\({remedy}\)"):
            Secrets.of(file, told)
        told[name] = value
    assert Secrets.of(file, told) == Secrets("correcthorsebattery", PEPPER, ADMIN_KEY)


def test_an_export_continues_the_same_stack_and_writes_over_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, small(environment={"TIDEGATE_A": "1"}, scaled_by="tidegate"))
    file = read(path)
    names = [each.name for each in export(file, tmp_path, tmp_path / "out")]
    assert names == ["Pulumi.yaml", "Pulumi.test.yaml", "__main__.py", "requirements.txt"]
    project = yaml.safe_load((tmp_path / "out" / "Pulumi.yaml").read_text())
    assert project["name"] == "tidegate-infra"
    assert project["backend"]["url"] == f"file://{tmp_path}/state"
    stack = yaml.safe_load((tmp_path / "out" / "Pulumi.test.yaml").read_text())
    assert stack["config"] == {"aws:region": "us-west-2", "aws-native:region": "us-west-2"}
    assert "scaled_by=ScaledBy.TIDEGATE," in (tmp_path / "out" / "__main__.py").read_text()
    with pytest.raises(StackFailed, match=r"Pulumi.yaml is there already; name another directory"):
        export(file, tmp_path, tmp_path / "out")


def test_no_secret_of_the_environment_is_in_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "TIDEGATE_DATABASE_PASSWORD", "correcthorsebattery")
    done = run("export", str(tmp_path / "out"), "--file", str(EXAMPLE))
    assert done.exit_code == 0, done.output
    texts = [each.read_text() for each in (tmp_path / "out").iterdir()]
    assert not any("correcthorse" in text for text in texts)
    assert any('pepper=config.require_secret("pepper")' in text for text in texts)
