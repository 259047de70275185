"""Failpoints are comments in the source, and calls in test processes only."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults import failpoints

import tidegate_controlplane

PACKAGE = Path(tidegate_controlplane.__file__).parent
MARKED = [path for path in sorted(PACKAGE.rglob("*.py")) if "# failpoint" in path.read_text()]


@pytest.mark.parametrize("path", MARKED, ids=lambda path: path.stem)
def test_what_is_installed_has_nothing_of_a_failpoint(path):
    source = path.read_text()
    blank = re.sub(r"# failpoint .*", "#", source)
    assert compile(source, "m", "exec") == compile(blank, "m", "exec")
    assert "failpoint" not in repr(constants(compile(source, "m", "exec")))


def constants(code):
    inner = [constants(each) for each in code.co_consts if hasattr(each, "co_consts")]
    return [code.co_names, code.co_varnames, code.co_consts, inner]


def test_every_mark_in_the_source_is_one_that_is_compiled():
    lines = sum(path.read_text().count("# failpoint") for path in MARKED)
    assert lines == len(failpoints.names(PACKAGE))


SCRIPT = """
import json, sys
from tests.faults import failpoints
failpoints.install()
from tidegate_controlplane.work import dispatch
failpoints.arm([failpoints.Fault.parse(text) for text in sys.argv[1:]])
reached = []
for _ in range(3):
    try:
        failpoints.hit("claim.committed")
        reached.append("passed")
    except OSError as error:
        reached.append(error.errno)
print(json.dumps([dispatch.__cached__, hasattr(dispatch, "__failpoint__"), reached]))
"""


def run(*faults):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *faults], capture_output=True, text=True, check=False
    )


def test_a_fault_happens_at_the_hit_that_it_names_and_leaves_no_bytecode():
    done = run("claim.committed=eio@2", "other.name=kill@1")
    cached, marked, reached = json.loads(done.stdout)
    assert marked and reached == ["passed", 5, "passed"]
    found = cached is not None and Path(cached).exists()
    assert not found or b"__failpoint__" not in Path(cached).read_bytes()


def test_a_kill_is_a_kill():
    assert run("claim.committed=kill@2").returncode == -9
