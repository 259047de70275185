"""What comes back of a batch over a table of this machine."""

from __future__ import annotations

import pytest

from tidegate.errors import TableError
from tidegate.protocol.work import BatchObject
from tidegate.routes import table_batch


def test_a_table_that_cannot_be_finished_leaves_its_place_as_it_was(tmp_path):
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("prompt\na\nb\n")
    output.write_text("of before")
    job = table_batch.job(
        source, "m", "/v1/completions", column="prompt", template=None, id_column=None
    )
    source.write_text("prompt\na\nb,too many\n")  # changed while the batch ran
    batch = BatchObject(
        id="batch_1",
        endpoint="/v1/completions",
        completion_window="24h",
        status="completed",
        created_at=0,
    )
    with pytest.raises(TableError, match="row 2 has 2 fields"):
        list(table_batch.collect(batch, job, output))
    assert output.read_text() == "of before"
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "out.csv"}
