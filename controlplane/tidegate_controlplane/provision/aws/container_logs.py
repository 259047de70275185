"""What the copies of a component wrote, out of CloudWatch into the files of their replicas.

SageMaker writes the output of all copies of a component into one log group and does not say which
copy is whose, so each replica's log is that of its component from its start on.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tidegate.protocol.resources import LogLine
from tidegate_controlplane.provision.log import last_line, read_lines
from tidegate_controlplane.settings import AwsSettings

GROUP = "/aws/sagemaker/InferenceComponents/{}"
PAGE = 1000


class ContainerLogs:
    """The files of the replicas' logs under a directory. Its methods block."""

    def __init__(self, settings: AwsSettings, session: boto3.Session, directory: Path) -> None:
        self._directory = directory
        self._fetching = threading.Lock()
        # Its methods are made at run time, from the service's description.
        self._client: Any = session.client(
            "logs",
            region_name=settings.region,
            config=Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard"}),
        )
        self._reached: dict[Path, tuple[int, set[str]]] = {}
        """By file: the time of the newest event in it (ms), and the ids of those of that time."""

    def fetch(self, component: str, replica_id: str, since: datetime) -> None:
        """Add what its component wrote since then; without an answer the file stays as it is."""
        with self._fetching:
            self._fetch(component, self._path(replica_id), since)

    def _fetch(self, component: str, path: Path, since: datetime) -> None:
        at_ms, known = self._reached.get(path, (int(since.timestamp() * 1000), set()))
        try:
            pages = self._client.get_paginator("filter_log_events").paginate(
                logGroupName=GROUP.format(component),
                startTime=at_ms,
                PaginationConfig={"MaxItems": PAGE},
            )
            events = [event for page in pages for event in page["events"]]
        except (BotoCoreError, ClientError):
            return  # the group is made with the first line
        fresh = [event for event in events if event["eventId"] not in known]
        if not fresh:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.writelines(f"{event['message'].rstrip()}\n" for event in fresh)
        newest = max(event["timestamp"] for event in fresh)
        kept = known if newest == at_ms else set()
        same = {event["eventId"] for event in fresh if event["timestamp"] == newest}
        self._reached[path] = (newest, kept | same)

    def read(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        """Whole lines from a byte offset."""
        return read_lines(self._path(replica_id), replica_id, offset, limit)

    def last_line(self, replica_id: str) -> str:
        """Empty when there is none."""
        return last_line(self._path(replica_id))

    def keep(self, replica_ids: Collection[str]) -> None:
        """Delete the files of all others."""
        if self._directory.is_dir():
            for home in self._directory.iterdir():
                if home.name not in replica_ids:
                    shutil.rmtree(home, ignore_errors=True)
                    self._reached.pop(home / "log", None)

    def _path(self, replica_id: str) -> Path:
        return self._directory / replica_id / "log"
