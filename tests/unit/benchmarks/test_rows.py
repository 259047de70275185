import json
from pathlib import Path

import pytest
from benchmarks.catalogue import peer_systems
from benchmarks.measure import Figures, figure
from benchmarks.rows import Row, find, read_rows, write_rows
from benchmarks.workloads import DECODE_1, PREFILL_1024, THROUGHPUT_8, TTFT

ROW = Row("llama.cpp", "decode_1", "decode", 71.5, "tok/s", "q4_1")


def test_a_result_is_a_json_list_of_rows_with_six_fields(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latest.json"
    write_rows(path, [ROW, ROW])
    fields = {"system", "workload", "metric", "value", "unit", "precision"}
    assert [set(row) for row in json.loads(path.read_text())] == [fields, fields]
    assert read_rows(path) == [ROW, ROW]


def test_a_row_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    path.write_text('[{"system": "x", "speed": 1}]')
    with pytest.raises(TypeError, match="speed"):
        read_rows(path)


def test_a_figure_is_found_by_system_and_workload() -> None:
    assert find([ROW], "llama.cpp", "decode_1") is ROW
    assert find([ROW], "vllm", "decode_1") is None
    assert find([ROW], "llama.cpp", "decode_1", "prefill") is None


def test_the_median_of_the_samples_counts() -> None:
    (system,) = [each for each in peer_systems() if each.name == "llama.cpp"]
    figures = Figures(system)
    for value in (70.0, 10.0, 71.5, 72.0, 99.0):
        figures.add("decode_1", "decode", "tok/s", value)
    assert figures.rows() == [ROW]


def test_a_metric_is_made_of_the_time_of_the_whole_and_that_of_the_first_token() -> None:
    assert figure(TTFT, 0.25, 0.0) == 0.25
    assert figure(PREFILL_1024, 2.0, 0.0) == 512
    assert figure(THROUGHPUT_8, 4.0, 0.0) == 256
    assert figure(DECODE_1, 1.52, 0.25) == pytest.approx(100)
