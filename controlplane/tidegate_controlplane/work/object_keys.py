"""The names of stored objects. Each begins with the project that owns it."""

from __future__ import annotations

import re

from tidegate_controlplane.store.references import Kind, Owner
from tidegate_controlplane.store.tables import Invocation


def request_key(project_id: str, invocation_id: str) -> str:
    return f"{project_id}/requests/{invocation_id}"


def fetched_key(project_id: str, invocation_id: str, epoch: int) -> str:
    """Of a body by reference, as one run fetched it: another run writes over nobody else's."""
    return f"{project_id}/requests/{invocation_id}/{epoch}"


def result_key(project_id: str, invocation_id: str, epoch: int) -> str:
    """Of one run: a run whose lease was lost writes over nobody else's answer."""
    return f"{project_id}/results/{invocation_id}/{epoch}"


def file_key(project_id: str, file_id: str) -> str:
    return f"{project_id}/files/{file_id}"


def line_key(project_id: str, batch_id: str, line_no: int) -> str:
    """The request of one line, when it is too large for its row."""
    return f"{project_id}/batches/{batch_id}/requests/{line_no}"


def batch_file_key(project_id: str, batch_id: str, kind: str) -> str:
    """`kind` is `output` or `error`."""
    return f"{project_id}/batches/{batch_id}/{kind}.jsonl"


def request_key_of(row: Invocation) -> str:
    """Of an invocation, or of a line of a batch.

    It follows from whose it is, and not from what the row says, but for the run that fetched it.
    """
    if row.batch_id is not None:
        return line_key(row.project_id, row.batch_id, row.line_no or 0)
    own = request_key(row.project_id, row.id)
    fetched = (row.request_key or "").startswith(f"{own}/")
    return f"{own}/{(row.request_key or '').rpartition('/')[2]}" if fetched else own


def result_key_of(row: Invocation) -> str:
    """Of the run that succeeded: the row's epoch is still that run's."""
    return result_key(row.project_id, row.id, row.lease_epoch)


_SHAPES = {
    Kind.REQUEST: re.compile(r"([^/]+)/requests/([^/]+)(?:/\d+)?"),
    Kind.RESULT: re.compile(r"([^/]+)/results/([^/]+)/(\d+)"),
    Kind.FILE: re.compile(r"([^/]+)/files/([^/]+)"),
    Kind.LINE: re.compile(r"([^/]+)/batches/([^/]+)/requests/(\d+)"),
    Kind.BATCH_FILE: re.compile(r"([^/]+)/batches/([^/]+)/(?:output|error)\.jsonl"),
}


def owner_of(key: str) -> Owner | None:
    """Whose object it is; None when this file makes no such name."""
    for kind, shape in _SHAPES.items():
        if found := shape.fullmatch(key):
            project_id, owner_id, *part = found.groups()
            return Owner(kind, project_id, owner_id, *map(int, part))
    return None
