"""Each row of the fault matrix fails when the line that it guards is taken away."""

from __future__ import annotations

import pytest
from tests.faults.matrix import ROWS
from tests.faults.mutations import MUTATIONS, PACKAGE, broken


@pytest.mark.soak
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)
def test_a_row_fails_without_what_it_guards(mutation, tmp_path):
    done = broken(mutation, tmp_path)
    assert done.returncode == 1, f"{mutation.what} was not noticed\n{done.stdout[-2000:]}"


def test_each_row_has_a_mutation_and_each_mutation_has_its_line():
    assert {mutation.row for mutation in MUTATIONS} == set(ROWS)
    for mutation in MUTATIONS:
        assert (PACKAGE / mutation.file).read_text().count(mutation.before) == 1, mutation.name
