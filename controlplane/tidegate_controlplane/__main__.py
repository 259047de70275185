"""`python -m tidegate_controlplane --data DIR`: run one control plane in the foreground.

Exit status: 0 stopped, 1 failed, 2 wrong usage, 4 the port is taken, 5 the data directory is.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from tidegate.protocol.replica import Telemetry
from tidegate.telemetry.logs import log_to_stderr
from tidegate.telemetry.traces import MISSING, can_trace
from tidegate_controlplane.errors import StartError
from tidegate_controlplane.process import serve
from tidegate_controlplane.settings import Settings


def main() -> int:
    arguments = _parser().parse_args()
    log_to_stderr(arguments.log_format, getattr(logging, arguments.log_level.upper()))
    settings = Settings(
        data_dir=arguments.data.absolute(),
        host=arguments.host,
        port=arguments.port,
        objects=arguments.objects,
        database=arguments.database,
        replica_host=arguments.replica_host,
        telemetry=Telemetry(
            log_format=arguments.log_format, otlp_endpoint=arguments.otlp_endpoint or None
        ),
    )
    try:
        _check_traces(settings.telemetry)
        asyncio.run(serve(settings))
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


def _check_traces(telemetry: Telemetry) -> None:
    """Raise StartError when spans are to be sent and cannot be."""
    if telemetry.otlp_endpoint and not can_trace():
        raise StartError(
            f"--otlp-endpoint {telemetry.otlp_endpoint!r}: traces are not installed; {MISSING}"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tidegate_controlplane", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory for all state")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8686, help="0 takes any free one")
    parser.add_argument(
        "--objects", help="s3://bucket/prefix or a directory; one under --data if absent"
    )
    parser.add_argument("--database", help="postgresql://…; a SQLite file under --data if absent")
    parser.add_argument(
        "--replica-host",
        default="127.0.0.1",
        help="address that replicas listen on; one that control planes elsewhere reach",
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning"])
    parser.add_argument(
        "--log-format", default="json", choices=["json", "text"], help="text is for people"
    )
    parser.add_argument(
        "--otlp-endpoint",
        default=os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"),
        help="where spans go, as http://host:4318; that of OTEL_EXPORTER_OTLP_ENDPOINT if absent",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
