"""`python -m tidegate_runtime.zygote --socket N --parent-pid P`: see tidegate.protocol.zygote."""

from __future__ import annotations

import argparse
import functools
import os
import socket
import sys

from tidegate.telemetry.logs import log_to_stderr
from tidegate_runtime.artifact.warm import Shelf
from tidegate_runtime.server.__main__ import main as serve_replica
from tidegate_runtime.server.parent import tie_to
from tidegate_runtime.zygote.zygote import Zygote


def main(arguments: list[str]) -> int:
    """Serve until the other end is closed; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tidegate_runtime.zygote", description=__doc__)
    parser.add_argument("--socket", type=int, required=True, help="a descriptor")
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--warm-bytes", type=int, default=0, help="what warm models may take")
    parser.add_argument("--log-format", choices=("json", "text"), default="json")
    parser.add_argument("--traces", action="store_true", help="replicas will send spans")
    asked = parser.parse_args(arguments)
    tie_to(asked.parent_pid)
    log_to_stderr(asked.log_format)
    connection = socket.socket(fileno=asked.socket)
    connection.set_inheritable(False)
    # numpy's OpenBLAS would start its threads at the import, and a fork wants a process of one.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from tidegate_runtime.chat.fork_server import ForkServer

    templates = ForkServer()  # it imports while this process does
    from tidegate_runtime.zygote.preload import preload

    preload(traces=asked.traces)
    from tidegate_runtime.server.inherited import Inherited
    from tidegate_runtime.zygote.warming import warm

    shelf = Shelf(asked.warm_bytes)
    inherited = Inherited(shelf, templates)
    zygote = Zygote(
        connection,
        asked.parent_pid,
        serve_replica=functools.partial(serve_replica, inherited=inherited),
        warm=functools.partial(warm, shelf),
    )
    return zygote.serve()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
