"""Where a result cannot be put is said before the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate_runtime.artifact.output import check_output
from tidegate_runtime.errors import ModelRefused


def test_a_new_directory_may_be_made_and_nothing_of_the_trial_stays(tmp_path: Path) -> None:
    check_output(tmp_path / "models" / "small")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("below", ["", "small", "models/small"])
def test_a_directory_that_cannot_be_made_is_refused_with_its_name(
    tmp_path: Path, below: str
) -> None:
    output = tmp_path / "file" / below
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(ModelRefused) as refused:
        check_output(output)
    assert repr(str(output)) in refused.value.message
    assert refused.value.reason == ("OutputUnwritable" if below else "OutputExists")


def test_a_directory_that_takes_nothing_is_refused() -> None:
    with pytest.raises(ModelRefused, match=r"cannot be made: .*; name a directory") as refused:
        check_output(Path("/proc/small"))
    assert refused.value.reason == "OutputUnwritable"
