"""`python -m tidegate_runtime.server --config FILE`: one replica.

Only light things are imported here: tied to its parent first, the process may take its time over
the rest.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pydantic

from tidegate.protocol.replica import (
    EXIT_CRASHED,
    EXIT_REFUSED,
    TOKEN_VARIABLE,
    ReplicaConfig,
    ReplicaState,
)
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable
from tidegate_runtime.server.logs import log_to_stderr
from tidegate_runtime.server.parent import die_with
from tidegate_runtime.server.status import StatusFile

log = logging.getLogger("tidegate_runtime.server")


def main(arguments: list[str]) -> int:
    """Run one replica; returns its exit status (see tidegate.protocol.replica)."""
    parser = argparse.ArgumentParser(prog="tidegate_runtime.server", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a ReplicaConfig as JSON")
    path: Path = parser.parse_args(arguments).config
    log_to_stderr()
    try:
        raw = read_raw(path)
    except ModelRefused as error:
        log.error("%s", error.message)
        return EXIT_REFUSED
    if isinstance(parent := raw.get("parent_pid"), int):
        die_with(parent)
    try:
        config = validate(path, raw)
        token = read_token()
    except ModelRefused as error:
        log.error("%s", error.message)
        report_failure(raw, error.reason, error.message)
        return EXIT_REFUSED
    prepare_libraries()
    status = StatusFile(Path(config.status_path), config.replica_id)
    status.write(ReplicaState.STARTING)
    return serve(config, token, status)


def prepare_libraries() -> None:
    """Set what the libraries imported later read from the environment as they load.

    OpenMP's threads spin for long while they wait for each other unless told otherwise, which
    starves other replicas; asleep at once they are slow to come back. So they spin for the few
    microseconds between two operators, then sleep (docs/decisions/007).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # transformers draws progress bars past its own setting; a log has whole lines.
    os.environ.setdefault("TQDM_DISABLE", "1")


def serve(config: ReplicaConfig, token: str, status: StatusFile) -> int:
    """Import the server and run it."""
    import asyncio

    from tidegate_runtime.server.process import bind, run

    try:
        listener = bind(config.host, config.port)
    except ReplicaUnavailable as error:
        log.error("%s", error.message)
        status.write(ReplicaState.FAILED, reason=error.reason, message=error.message)
        return EXIT_CRASHED
    return asyncio.run(run(config, token, listener, status))


def read_raw(path: Path) -> dict[str, Any]:
    """The configuration file as a JSON object. Raises ModelRefused (BadConfig)."""
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelRefused("BadConfig", f"configuration {str(path)!r}: {error}") from error
    if not isinstance(raw, dict):
        raise ModelRefused("BadConfig", f"configuration {str(path)!r} is not a JSON object")
    return raw


def validate(path: Path, raw: dict[str, Any]) -> ReplicaConfig:
    """A valid configuration. Raises ModelRefused (BadConfig) that names every wrong field."""
    try:
        return ReplicaConfig.model_validate(raw)
    except pydantic.ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
            for item in error.errors(include_url=False)
        )
        raise ModelRefused("BadConfig", f"configuration {str(path)!r}: {wrong}") from error


def read_token() -> str:
    """The bearer token, taken out of the environment. Raises ModelRefused (TokenMissing)."""
    token = os.environ.pop(TOKEN_VARIABLE, "")
    if not token:
        raise ModelRefused(
            "TokenMissing", f"the environment variable {TOKEN_VARIABLE} is empty; set it"
        )
    return token


def report_failure(raw: dict[str, Any], reason: str, message: str) -> None:
    """Say so in the status file, where the broken configuration still names one."""
    path, replica_id = raw.get("status_path"), raw.get("replica_id")
    if isinstance(path, str) and isinstance(replica_id, str):
        StatusFile(Path(path), replica_id).write(
            ReplicaState.FAILED, reason=reason, message=message
        )


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    sys.stderr.flush()
    # Daemon threads may be inside torch; a normal exit would tear it down under them.
    os._exit(code)
