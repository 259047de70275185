"""Importing the SDK is quick and brings nothing heavy along."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tidegate

HEAVY = {"torch", "transformers", "litestar", "sqlmodel", "sqlalchemy", "boto3", "pulumi"}
PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def _modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {module.partition(".")[0] for module in ran.stdout.split()}


def test_importing_the_package_loads_no_dependency_at_all() -> None:
    assert not _modules_after("import tidegate") & {"httpx", "pydantic", "yaml", "rich", "typer"}


@pytest.mark.parametrize(
    "statement",
    ["from tidegate import *", "import tidegate.cli.app", "from tidegate import AsyncClient"],
)
def test_neither_the_sdk_nor_the_cli_loads_a_server_or_a_model_library(statement: str) -> None:
    assert not _modules_after(statement) & HEAVY


def test_the_declaration_language_loads_no_http_client() -> None:
    assert not _modules_after("import tidegate.spec, tidegate.protocol.resources") & {"httpx"}


def test_every_public_name_can_be_imported() -> None:
    assert [name for name in tidegate.__all__ if not hasattr(tidegate, name)] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Cleint'"):
        _ = tidegate.Cleint


def test_the_version_is_the_distributions() -> None:
    assert tidegate.__version__ == tomllib.loads(PROJECT.read_text())["project"]["version"]
