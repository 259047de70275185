"""Tables: every row out, in order, with its own columns as they were."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidegate.errors import TableError
from tidegate.protocol.batch import TableFormat
from tidegate.tables.base import ADDED, CHUNK_ROWS, Answered
from tidegate.tables.open import (
    CONVERSIONS,
    check_columns,
    check_formats,
    create_table,
    format_of,
    open_table,
)

F = TableFormat
ROWS = [{"id": f"{n:03}", "text": f'a "{n}",\nb' if n % 3 else "é"} for n in range(450)]


def write(path: Path, rows: list[dict]) -> Path:
    match format_of(path):
        case F.CSV:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        case F.JSONL:
            path.write_text("\n\n".join(json.dumps(row) for row in rows))
        case F.PARQUET:
            pq.write_table(pa.Table.from_pylist(rows), path)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def opened(path: Path):
    return open_table(path, format_of(path), compressed=path.suffix == ".gz")


def read(path: Path) -> list[dict]:
    return [row for chunk in opened(path).chunks() for row in chunk.rows]


NAMES = ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_gives_its_rows_in_order_a_chunk_at_a_time(tmp_path, name):
    table = opened(write(tmp_path / name, ROWS))
    chunks = list(table.chunks())
    assert [row for chunk in chunks for row in chunk.rows] == ROWS
    assert [len(chunk.rows) for chunk in chunks] == [CHUNK_ROWS, CHUNK_ROWS, 50]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_columns_that_are_needed_are_given(tmp_path, name):
    table = opened(write(tmp_path / name, ROWS))
    assert next(table.chunks(["id"])).rows[0] == {"id": "000"}


PAIRS = [(given, wanted) for given, others in CONVERSIONS.items() for wanted in others]


@pytest.mark.parametrize(("given", "wanted"), PAIRS)
def test_rows_are_written_beside_their_answers_in_every_pair_of_formats(tmp_path, given, wanted):
    table = opened(write(tmp_path / f"a.{given}", ROWS))
    path = tmp_path / f"a.out.{wanted}"
    writer = create_table(path, wanted, table, vectors=False)
    number = 0
    for chunk in table.chunks():
        answers = [Answered(f"say {number + n}", None, 1, 2) for n in range(len(chunk.rows))]
        answers[0] = Answered(error="no")
        number += len(chunk.rows)
        writer.write(chunk, answers)
    writer.close()
    found = read(path)
    assert [{k: v for k, v in row.items() if k not in ADDED} for row in found] == ROWS
    assert list(found[0]) == ["id", "text", *ADDED]
    empty, one, two = ("", "1", "2") if wanted is F.CSV else (None, 1, 2)
    assert [found[1][name] for name in ADDED] == ["say 1", empty, one, two]
    assert [found[200][name] for name in ADDED] == [empty, "no", empty, empty]


def test_parquet_keeps_the_types_of_its_columns_and_a_vector_is_a_list(tmp_path):
    schema = pa.schema([("day", pa.date32()), ("tags", pa.list_(pa.string())), ("n", pa.int16())])
    rows = [{"day": date(2026, 1, 2), "tags": ["x"], "n": 3}]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "a.parquet")
    table = opened(tmp_path / "a.parquet")
    writer = create_table(tmp_path / "b.parquet", F.PARQUET, table, vectors=True)
    for chunk in table.chunks():
        writer.write(chunk, [Answered([0.5, 1.0], None, 1, 0)])
    writer.close()
    written = pq.read_table(tmp_path / "b.parquet")
    assert written.schema.types[:3] == schema.types
    assert written.to_pylist()[0] == rows[0] | Answered([0.5, 1.0], None, 1, 0).columns


def test_a_line_that_is_no_object_is_still_a_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\nnot json\n[2]\n')
    assert read(tmp_path / "a.jsonl") == [{"a": 1}, None, None]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"a,a\n1,2\n", "two columns of one name"),
        ("a.csv", b"a,b\n1,2\n1\n", "row 2 has 1 fields, its header 2"),
        ("a.csv", b'a\n"x" y\n', "is not CSV"),
        ("a.csv", b"a\n\xff\n", "is not UTF-8"),
        ("a.csv.gz", b"a\n1\n", "is not whole gzip"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}' * 99, mtime=0)[:-9], "is not whole gzip"),
        ("a.parquet", b"PAR1", "is not a Parquet file"),
        ("a.jsonl", b" " * (8 * 1024 * 1024 + 1), "line 1 is longer than"),
    ],
)
def test_what_is_no_table_is_said_with_the_name_and_the_place(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=said) as refused:
        read(tmp_path / name)
    assert name in str(refused.value)


def test_a_parquet_file_that_ends_early_is_said_to_be_broken_where_it_breaks(tmp_path):
    path = write(tmp_path / "a.parquet", ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(TableError, match=r"a\.parquet"):
        read(path)


def test_columns_that_are_missing_or_in_the_way_are_named(tmp_path):
    table = opened(write(tmp_path / "a.csv", [{"text": "x", "error": "y"}]))
    with pytest.raises(TableError, match=r"part 1 has no column 'prompt'; it has text, error"):
        check_columns(table, "part 1", ["prompt"])
    with pytest.raises(TableError, match="a column 'error' already"):
        check_columns(table, "part 1", ["text"])


def test_formats_that_cannot_follow_each_other_are_refused():
    with pytest.raises(TableError, match="jsonl rows cannot be written as parquet; choose jsonl"):
        check_formats(F.JSONL, F.PARQUET)


def test_a_name_says_its_format_or_is_refused():
    assert format_of(Path("x/a.NDJSON.gz")) is F.JSONL
    with pytest.raises(TableError, match=r"notes\.txt"):
        format_of(Path("notes.txt"))


def test_without_pyarrow_parquet_says_what_to_install_and_the_rest_works(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    program = f"""
import sys
sys.modules["pyarrow"] = None
from pathlib import Path
from tidegate.errors import TableError
from tidegate.tables.open import TableFormat, open_table
table = open_table(Path({str(tmp_path / "a.csv")!r}), TableFormat.CSV, compressed=False)
assert len(list(table.chunks())) == 1
try:
    open_table(Path("a.parquet"), TableFormat.PARQUET, compressed=False)
except TableError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'tidegate[tables]'" in said.stdout, said.stderr
