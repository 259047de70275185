"""What the image runs: `serve`, as SageMaker says it, or `batch INPUT OUTPUT` for one job.

Both are told of their model by the environment (`container.environment`). Exit status: 0 drained
or done, 1 to be tried again, 3 refused.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import MutableMapping

from tidegate.protocol.replica import (
    EXIT_CRASHED,
    EXIT_DRAINED,
    EXIT_REFUSED,
    TOKEN_VARIABLE,
)
from tidegate.telemetry.logs import log_to_stderr
from tidegate_runtime.container.environment import replica_config
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable
from tidegate_runtime.server.__main__ import prepare_libraries, start
from tidegate_runtime.server.front import Front
from tidegate_runtime.server.ranks import forked_ranks

log = logging.getLogger("tidegate_runtime.container")

STOPPED_EARLY = {"serve": EXIT_DRAINED, "batch": EXIT_CRASHED}
"""The exit status of a SIGTERM before anything is in flight: no request is lost, but a job is."""


def main(arguments: list[str], environment: MutableMapping[str, str]) -> int:
    """Run the image's command; returns its exit status."""
    asked = parser().parse_args(arguments or ["serve"])
    # A container's first process ignores what it does not handle, and loading takes long.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(STOPPED_EARLY[asked.command]))
    log_to_stderr("json")
    try:
        config = replica_config(environment)
        token = environment.pop(TOKEN_VARIABLE, "") or None
        if asked.command == "serve":
            return start(config, Front(token, sagemaker=True))
        log_to_stderr(config.telemetry.log_format, fields={"deployment": config.model_name})
        prepare_libraries(config.device)
        with forked_ranks(config.tensor_parallel) as ranks:
            from tidegate_runtime.batch.job import run_job

            return run_job(config, asked.input, asked.output, ranks)
    except ModelRefused as error:
        log.error("%s", error.message)
        return EXIT_REFUSED
    except ReplicaUnavailable as error:
        log.error("%s", error.message)
        return EXIT_CRASHED


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="tidegate_runtime.container", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="answer /ping and /invocations; the default")
    batch = commands.add_parser("batch", help="answer the lines of a batch, then end")
    batch.add_argument("input", help="s3://bucket/prefix/ of .jsonl objects, or one of them")
    batch.add_argument("output", help="s3://bucket/prefix/ for results, errors and checkpoints")
    return made


if __name__ == "__main__":
    code = main(sys.argv[1:], os.environ)
    logging.shutdown()
    sys.stderr.flush()
    # Daemon threads may be inside torch; a normal exit would tear it down under them.
    os._exit(code)
