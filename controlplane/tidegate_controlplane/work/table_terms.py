"""What may be asked of a batch over tables. Pure."""

from __future__ import annotations

from collections.abc import Collection

from tidegate.errors import TableError
from tidegate.protocol.batch import TableInput, TableOutput
from tidegate.tables.open import check_formats
from tidegate.tables.request import row_request
from tidegate_controlplane.errors import BadRequest


def check_tables(
    source: TableInput, target: TableOutput, endpoint: str, buckets: Collection[str]
) -> None:
    """Raises BadRequest naming the field."""
    for name, uri in (("input.uri", source.uri), ("output.uri", target.uri)):
        _check_bucket(name, uri, buckets)
    if not target.uri.endswith("/"):
        raise BadRequest(
            f"Invalid value for 'output.uri': expected a prefix that ends in '/', got "
            f"{target.uri!r}.",
            param="output.uri",
        )
    if source.uri.endswith("/") and target.uri.startswith(source.uri):
        raise BadRequest(
            f"Invalid value for 'output.uri': {target.uri!r} lies under the input, where it would "
            "be read as one; choose another prefix.",
            param="output.uri",
        )
    try:
        check_formats(source.format, target.format or source.format)
    except TableError as error:
        raise BadRequest(
            f"Invalid value for 'output.format': {error}.", param="output.format"
        ) from None
    try:
        row_request(source, endpoint)
    except TableError as error:
        raise BadRequest(f"Invalid value for 'input': {error}.", param="input") from None


def _check_bucket(name: str, uri: str, buckets: Collection[str]) -> None:
    bucket = uri.removeprefix("s3://").partition("/")[0]
    if bucket not in buckets:
        raise BadRequest(
            f"Invalid value for '{name}': this platform may not use the bucket {bucket!r}; whoever "
            "runs it can list it in `limits.s3_buckets`.",
            code="bucket_not_allowed",
            param=name,
        )
