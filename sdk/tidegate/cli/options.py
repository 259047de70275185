"""Options and arguments that many commands share, and the client they talk through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import remember_json
from tidegate.errors import TidegateError

if TYPE_CHECKING:
    from tidegate.client import Client

COMPLETION_TIMEOUT_S = 1.0


@contextmanager
def connected() -> Iterator[Client]:
    """A client for the server that the environment or the profile names."""
    from tidegate.client import Client

    with Client() as client:
        yield client


def _known_names(incomplete: str) -> list[str]:
    """Deployment names for shell completion; none when no server answers quickly."""
    from tidegate.client import Client

    try:
        with Client(timeout=COMPLETION_TIMEOUT_S, max_retries=0) as client:
            names = [deployment.name for deployment in client.deployments.list()]
    except TidegateError:
        return []
    return [name for name in names if name.startswith(incomplete)]


Json = Annotated[
    bool,
    typer.Option(
        "--json", callback=remember_json, is_eager=True, help="Write JSON, errors included."
    ),
]
Name = Annotated[str, typer.Argument(help="The deployment's name.", autocompletion=_known_names)]
SpecFile = Annotated[
    str,
    typer.Option(
        "--file", "-f", help="YAML or JSON, several documents too; '-' reads standard input."
    ),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when it serves.")]
TimeoutS = Annotated[float, typer.Option("--timeout", help="Seconds to wait at most.", min=0)]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", help="The platform's data directory.  [default: ~/.local/share/tidegate]"
    ),
]
