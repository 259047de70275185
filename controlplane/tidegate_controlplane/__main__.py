"""`python -m tidegate_controlplane --data DIR`: run one control plane in the foreground.

Exit status: 0 stopped, 1 failed, 2 wrong usage, 4 the port is taken, 5 the data directory is.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from tidegate_controlplane.errors import StartError
from tidegate_controlplane.process import serve
from tidegate_controlplane.settings import Settings


def main() -> int:
    arguments = _parser().parse_args()
    logging.basicConfig(
        stream=sys.stderr,
        level=arguments.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = Settings(
        data_dir=arguments.data.absolute(),
        host=arguments.host,
        port=arguments.port,
        objects=arguments.objects,
    )
    try:
        asyncio.run(serve(settings))
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tidegate_controlplane", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory for all state")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8686, help="0 takes any free one")
    parser.add_argument("--objects", help="s3://bucket/prefix; a directory under --data if absent")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning"])
    return parser


if __name__ == "__main__":
    sys.exit(main())
