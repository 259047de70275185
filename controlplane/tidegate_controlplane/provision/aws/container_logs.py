"""What the copies of a component wrote, out of CloudWatch into the files of their replicas.

SageMaker writes the output of all copies of a component into one log group and does not say which
copy is whose, so each replica's log is that of its component from its start on.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tidegate_controlplane.settings import AwsSettings

GROUP = "/aws/sagemaker/InferenceComponents/{}"
PAGE = 1000


class ContainerLogs:
    """Fetches what is new since the last time. Its method blocks."""

    def __init__(self, settings: AwsSettings, session: boto3.Session) -> None:
        # Its methods are made at run time, from the service's description.
        self._client: Any = session.client(
            "logs",
            region_name=settings.region,
            config=Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard"}),
        )
        self._reached: dict[Path, tuple[int, set[str]]] = {}
        """By file: the time of the newest event in it (ms), and the ids of those of that time."""

    def append(self, component: str, since: datetime, path: Path) -> None:
        """Add to the file what was written since; without an answer it stays as it is."""
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
