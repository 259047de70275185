"""Settings from a file and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tidegate_controlplane.errors import StartError
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.settings_file import read_settings

DATA = {"data_dir": Path("/data")}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tidegate.yaml"


def test_without_a_file_what_is_not_said_is_the_default() -> None:
    settings = read_settings(None, {**DATA, "port": None, "host": "::1", "encryption": {}})
    assert settings == Settings(data_dir=Path("/data"), host="::1")


def test_a_file_sets_what_it_names_and_the_command_line_is_over_it(file: Path) -> None:
    file.write_text("port: 9000\nhost: 0.0.0.0\nlimits:\n  hold_queue: 7\nwork: {lease_s: 60}\n")
    settings = read_settings(file, {**DATA, "port": 9001, "host": None})
    assert (settings.port, settings.host) == (9001, "0.0.0.0")
    assert (settings.limits.hold_queue, settings.work.lease_s) == (7, 60.0)
    assert settings.limits.json_depth == Settings(**DATA).limits.json_depth


def test_sections_are_merged_field_by_field(file: Path) -> None:
    file.write_text("telemetry:\n  otlp_endpoint: http://127.0.0.1:4318\n")
    said = {**DATA, "telemetry": {"log_format": "text", "otlp_endpoint": None}}
    telemetry = read_settings(file, said).telemetry
    assert (telemetry.log_format, telemetry.otlp_endpoint) == ("text", "http://127.0.0.1:4318")


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("limits: {hold_queu: 7}", r"limits\.hold_queu: .*hold_queue.*\(got 7\)"),
        ("port: many", r"port: .*integer.*\(got 'many'\)"),
        ("port: 70000", r"port: .*65535.*\(got 70000\)"),
        ("limits: 5", r"limits: .*\(got 5\)"),
        ("data_dir: /x", r"data_dir: it is given by --data"),
        ("- a list", r"mapping"),
        ("a: [", r"tidegate\.yaml: "),
    ],
)
def test_a_file_that_is_wrong_is_named_with_the_field_and_the_value(
    file: Path, written: str, wrong: str
) -> None:
    file.write_text(written)
    with pytest.raises(StartError, match=wrong) as raised:
        read_settings(file, {**DATA, "limits": {"json_depth": None}})
    assert str(file) in str(raised.value)


def test_every_fault_of_a_file_is_told_at_once(file: Path) -> None:
    file.write_text("port: many\nwork: {lease_s: -1}\n")
    with pytest.raises(StartError, match=r"port: .*work\.lease_s: "):
        read_settings(file, DATA)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"--config '.*absent\.yaml'.*No such file"):
        read_settings(tmp_path / "absent.yaml", DATA)


AWS: dict[str, Any] = {
    "region": "eu-west-1",
    "state": "s3://state/stacks",
    "artifacts": "s3://models",
    "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/tidegate/runtime:1",
    "execution_role_arn": "arn:aws:iam::123456789012:role/tidegate-execution",
    "subnets": ["subnet-1"],
    "security_groups": ["sg-1"],
    "kms_key": "arn:aws:kms:eu-west-1:123456789012:key/1",
}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("region", "frankfurt", "must be a region, such as eu-west-1"),
        ("state", "/var/state", "must be s3://bucket/prefix"),
        ("artifacts", "models", "must be s3://bucket/prefix"),
        ("image", "tidegate/runtime:1", "must be ACCOUNT.dkr.ecr.REGION"),
        ("image", AWS["image"].replace("eu-west-1", "us-east-1"), "must be in eu-west-1"),
        ("execution_role_arn", "tidegate-execution", "aws iam get-role prints it"),
        ("kms_key", "alias/tidegate", "aws kms describe-key prints"),
        ("kms_key", "arn:aws:kms:us-east-1:123456789012:key/1", "must be in eu-west-1"),
        ("name", "n" * 24, "at most 23 characters"),
    ],
)
def test_what_aws_would_refuse_is_refused_at_the_start(
    file: Path, field: str, value: str, said: str
) -> None:
    settings = read_settings(None, {**DATA, "aws": AWS})
    assert settings.aws is not None
    file.write_text(json.dumps({"aws": {**AWS, field: value}}))
    with pytest.raises(StartError) as refused:
        read_settings(file, DATA)
    assert f"aws.{field}: " in str(refused.value)
    assert said in str(refused.value)
    assert repr(value) in str(refused.value)
