"""Logs on standard error, one line per record."""

from __future__ import annotations

import logging
import sys


class _OneLine(logging.Formatter):
    """A record with its traceback on a single line, so a reader of lines never sees half of one."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\r", "").replace("\n", " ⏎ ")


def log_to_stderr() -> None:
    """Send every logger's records from INFO up to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("httpx", "httpx2", "botocore", "filelock", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
