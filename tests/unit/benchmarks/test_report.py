from typing import Any

import pytest
from benchmarks.report import (
    BEGIN,
    END,
    machine_table,
    markdown,
    remarks,
    speculation_table,
    spliced,
    table,
)
from benchmarks.rows import Row

ROWS = [
    Row("tidegate int4", "decode_1", "decode", 150.26, "tok/s", "int4"),
    Row("tidegate int4", "decode_1_of_bound", "fraction", 0.273, "1", "int4"),
    Row("tidegate int4", "memory", "peak_rss", 600e6, "bytes", "int4"),
    Row("tidegate int8 speculation off", "speculate_repeat", "decode", 100.0, "tok/s", "int8"),
    Row("tidegate int8 speculation on", "speculate_repeat", "decode", 190.0, "tok/s", "int8"),
    Row("bound", "memory_read", "bandwidth", 55.0, "GB/s", "int4"),
    Row("bound", "decode_1", "decode", 550.0, "tok/s", "int4"),
]
META: dict[str, Any] = {
    "date": "2026-11-21T12:00:00+00:00",
    "command": "python -m benchmarks",
    "hardware": {"cpu": "A CPU", "cores": 2, "instructions": ["avx2"], "memory_gib": 24.0},
    "energy": False,
    "systems": {
        "tidegate int4": {"precision": "int4", "state": "measured", "why": "", "notes": []},
        "tidegate int8 speculation off": {"precision": "int8", "state": "measured", "why": ""},
        "tidegate int8 speculation on": {"precision": "int8", "state": "measured", "why": ""},
        "vllm": {"precision": "bf16", "state": "missing", "why": "not installed"},
        "openvino": {"precision": "q4_1", "state": "failed", "why": "exit status 1: out of memory"},
    },
}


def test_a_line_shows_every_figure_and_its_share_of_the_bound() -> None:
    head, lines = table(ROWS, META["systems"])
    assert head[:2] == ["system", "precision"]
    assert lines[0] == ["tidegate int4", "int4", "150.3 (27%)", "600"]


def test_workloads_that_nobody_ran_have_no_column() -> None:
    head, _ = table(ROWS, META["systems"])
    assert len(head) == 4


def test_who_is_missing_or_has_failed_keeps_a_line_that_says_so() -> None:
    _, lines = table(ROWS, META["systems"])
    assert [line[:3] for line in lines[1:3]] == [
        ["vllm", "bf16", "missing"],
        ["openvino", "q4_1", "failed"],
    ]


def test_the_bound_stands_below_by_precision() -> None:
    _, lines = table(ROWS, META["systems"])
    assert lines[-1] == ["bound", "int4", "550.0", "–"]


def test_speculation_is_shown_as_a_pair_and_not_in_the_table_of_systems() -> None:
    _, lines = table(ROWS, META["systems"])
    assert not [line for line in lines if "speculation" in line[0]]
    assert speculation_table(ROWS)[1] == [["repeats its prompt", "100.0", "190.0", "1.90"]]


def test_the_machine_is_shown_with_units() -> None:
    _, ((_, precision, value),) = machine_table(ROWS)
    assert (precision, value) == ("int4", "55.0 GB/s")


def test_remarks_say_what_is_not_there_and_what_disturbed() -> None:
    disturbed = {"precision": "int4", "state": "measured", "why": "", "others_cores": 0.4}
    found = remarks(META | {"systems": META["systems"] | {"noisy": disturbed}})
    assert "openvino is failed: exit status 1: out of memory" in found
    assert "vllm is missing: not installed" in found
    assert [each for each in found if each.startswith("noisy: other processes took 0.40 cores")]
    assert [each for each in found if each.startswith("energy is absent")]


def test_the_page_gets_the_table_between_its_marks_and_keeps_the_rest() -> None:
    page = f"# Title\n\n{BEGIN}\nold\n{END}\n\n## Reproduce\n"
    once = spliced(page, markdown(ROWS, META))
    assert once.startswith("# Title")
    assert once.endswith("## Reproduce\n")
    assert "| tidegate int4 | int4 | 150.3 (27%) | 600 |" in once
    assert "old" not in once
    assert spliced(once, markdown(ROWS, META)) == once


def test_a_page_without_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="the page has no"):
        spliced("# Title", "made")
