"""Which format a table has, and what reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidegate.errors import TableError
from tidegate.protocol.batch import TableFormat
from tidegate.tables.base import ADDED, Table, TableWriter
from tidegate.tables.csv_table import CsvTable, CsvWriter
from tidegate.tables.jsonl_table import JsonlTable, JsonlWriter

COMPRESSED = ".gz"
CONVERSIONS = {
    TableFormat.JSONL: (TableFormat.JSONL,),
    TableFormat.CSV: (TableFormat.CSV, TableFormat.JSONL, TableFormat.PARQUET),
    TableFormat.PARQUET: (TableFormat.PARQUET, TableFormat.JSONL),
}
"""What each format can be written as. JSON lines have no fixed columns, and CSV has no types."""


def format_of(path: Path) -> TableFormat:
    """By the name's ending, `.gz` left aside; raises TableError for any other."""
    ending = Path(path.name.removesuffix(COMPRESSED)).suffix.removeprefix(".").lower()
    if ending in ("jsonl", "ndjson"):
        return TableFormat.JSONL
    try:
        return TableFormat(ending)
    except ValueError:
        raise TableError(
            f"{path.name}: expected a name that ends in .parquet, .csv or .jsonl"
        ) from None


def open_table(path: Path, format_: TableFormat, *, compressed: bool) -> Table:
    """Raises TableError."""
    match format_:
        case TableFormat.CSV:
            return CsvTable(path, compressed=compressed)
        case TableFormat.JSONL:
            return JsonlTable(path, compressed=compressed)
        case TableFormat.PARQUET:
            if compressed:
                raise TableError("Parquet compresses itself: leave .gz out")
            from tidegate.tables.parquet_table import ParquetTable

            return ParquetTable(path)


def create_table(path: Path, format_: TableFormat, like: Table, *, vectors: bool) -> TableWriter:
    """A table of the columns of `like` and the added ones; `vectors` says what an answer is."""
    columns = like.columns or ()
    match format_:
        case TableFormat.CSV:
            return CsvWriter(path, columns)
        case TableFormat.JSONL:
            return JsonlWriter(path)
        case TableFormat.PARQUET:
            from tidegate.tables.parquet_table import ParquetWriter

            return ParquetWriter(path, columns, like.schema, vectors=vectors)


def check_formats(given: TableFormat, wanted: TableFormat) -> None:
    """Raises TableError unless rows of one format can be written as the other."""
    if wanted not in CONVERSIONS[given]:
        can = ", ".join(CONVERSIONS[given])
        raise TableError(f"{given} rows cannot be written as {wanted}; choose {can}")


def check_columns(table: Table, name: str, needed: Sequence[str]) -> None:
    """Raises TableError when a needed column is missing, or one has the name of an added one."""
    if table.columns is None:
        return
    if missing := [column for column in needed if column not in table.columns]:
        has = ", ".join(table.columns)
        raise TableError(f"{name} has no column {missing[0]!r}; it has {has}")
    if taken := [column for column in ADDED if column in table.columns]:
        raise TableError(
            f"{name} has a column {taken[0]!r} already, where the output's would be; rename it"
        )
