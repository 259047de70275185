"""A process that follows: `python -m tests.unit.runtime.follower DESCRIPTOR`."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from tidegate_runtime.parallel.rank import follow

if __name__ == "__main__":
    follow(Connection(int(sys.argv[1])))
