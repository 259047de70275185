"""Writes the Pulumi project that a file stands for; its stack is the same one."""

from __future__ import annotations

from pathlib import Path

import yaml

from tidegate.version import VERSION
from tidegate_infra.cli.file import InfraFile
from tidegate_infra.cli.source import source
from tidegate_infra.cli.stack import PROJECT, secrets_provider, state_url
from tidegate_infra.errors import StackFailed


def export(file: InfraFile, directory: Path, to: Path) -> list[Path]:
    """The files written into `to`; `directory` is that of the file.

    Raises StackFailed rather than write over one that is there.
    """
    texts = {
        "Pulumi.yaml": _yaml(
            {
                "name": PROJECT,
                "description": "What stands on AWS.",
                "runtime": {"name": "python", "options": {"virtualenv": "venv"}},
                "backend": {"url": state_url(file, directory)},
            }
        ),
        f"Pulumi.{file.stack}.yaml": _yaml(
            {
                "secretsprovider": secrets_provider(file),
                "config": {"aws:region": file.region, "aws-native:region": file.region},
            }
        ),
        "__main__.py": source(file),
        "requirements.txt": f"tidegate[infra]=={VERSION}\n",
    }
    for name in texts:
        if (to / name).exists():
            raise StackFailed(f"{to / name} is there already; name another directory")
    to.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (to / name).write_text(text)
    return [to / name for name in texts]


def _yaml(document: dict[str, object]) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False)
    return text
