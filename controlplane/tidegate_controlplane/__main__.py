"""`python -m tidegate_controlplane --data DIR`: run one control plane in the foreground.

The environment variable TIDEGATE_ADMIN_KEY may hold a key of `tidegate keys new`, which then is an
admin key from the first moment on.

Exit status: 0 stopped, 1 failed, 2 wrong usage, 4 the port is taken, 5 the data directory is.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

from tidegate.protocol.api_keys import ADMIN_KEY_VARIABLE
from tidegate.protocol.replica import Telemetry
from tidegate.telemetry.logs import log_to_stderr
from tidegate.telemetry.traces import MISSING, can_trace
from tidegate_controlplane.errors import StartError
from tidegate_controlplane.process import serve
from tidegate_controlplane.settings_file import read_settings


def main() -> int:
    arguments = _parser().parse_args()
    try:
        settings = read_settings(arguments.config, _said(arguments))
        log_to_stderr(settings.telemetry.log_format, getattr(logging, arguments.log_level.upper()))
        _check_traces(settings.telemetry)
        # Taken out of the environment, which every process that is started here inherits.
        asyncio.run(serve(settings, os.environ.pop(ADMIN_KEY_VARIABLE, None)))
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


def _said(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings as the command line says them; None where it does not."""
    return {
        "data_dir": arguments.data.absolute(),
        "host": arguments.host,
        "port": arguments.port,
        "objects": arguments.objects,
        "database": arguments.database,
        "encryption": {
            "keys": arguments.encryption_key,
            "required": arguments.encryption_required,
        },
        "telemetry": {
            "log_format": arguments.log_format,
            "otlp_endpoint": arguments.otlp_endpoint or None,
        },
    }


def _check_traces(telemetry: Telemetry) -> None:
    """Raise StartError when spans are to be sent and cannot be."""
    if telemetry.otlp_endpoint and not can_trace():
        raise StartError(
            f"--otlp-endpoint {telemetry.otlp_endpoint!r}: traces are not installed; {MISSING}"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tidegate_controlplane", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory for all state")
    parser.add_argument("--config", type=Path, help="YAML file of settings; options are over it")
    parser.add_argument("--host", help="address to listen on; 127.0.0.1 if absent")
    parser.add_argument("--port", type=int, help="0 takes any free one; 8686 if absent")
    parser.add_argument(
        "--objects", help="s3://bucket/prefix or a directory; one under --data if absent"
    )
    parser.add_argument("--database", help="postgresql://…; a SQLite file under --data if absent")
    parser.add_argument(
        "--encryption-key",
        action="append",
        metavar="PLACE",
        help="seal bodies and results at rest: a key file, or kms:<key id>; given again for older "
        "keys, and the last one seals",
    )
    parser.add_argument(
        "--encryption-required",
        action="store_true",
        default=None,
        help="refuse to read what is not sealed",
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning"])
    parser.add_argument(
        "--log-format", choices=["json", "text"], help="text is for people; json if absent"
    )
    parser.add_argument(
        "--otlp-endpoint",
        default=os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"),
        help="where spans go, as http://host:4318; that of OTEL_EXPORTER_OTLP_ENDPOINT if absent",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
