"""For each row of the fault matrix, a change of the platform that must make it fail.

A row that no mutation can break proves nothing. `broken` applies one to a copy of the source and
runs the row's tests on that copy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tidegate_controlplane

PACKAGE = Path(tidegate_controlplane.__file__).parent
TESTS = Path(__file__).parent
PYTEST = [
    sys.executable,
    *["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m"],
    "soak or not soak",
]


@dataclass(frozen=True)
class Mutation:
    """`before` becomes `after` in a file of the control plane."""

    row: str
    what: str
    """In words, for the table."""
    file: str
    before: str
    after: str
    test: str
    """What must fail: a node of pytest below tests/faults."""

    @property
    def name(self) -> str:
        return f"{self.row}-{self.what}".replace(" ", "_")


MUTATIONS = [
    Mutation(
        "power_lost",
        "`synchronous=NORMAL`",
        "store/sqlite.py",
        '"synchronous=FULL"',
        '"synchronous=NORMAL"',
        "test_power_loss.py::test_what_was_promised_survives_a_power_loss_at_any_moment[lost]",
    ),
    Mutation(
        "power_lost",
        "no fsync of the folder after the rename",
        "objects/directory.py",
        "        sync(target.parent)\n",
        "",
        "test_power_loss.py::test_what_was_promised_survives_a_power_loss_at_any_moment[lost]",
    ),
    Mutation(
        "power_names",
        "no fsync of the file before the rename",
        "objects/directory.py",
        "        os.fsync(self._fd)\n",
        "",
        "test_power_loss.py::test_what_was_promised_survives_a_power_loss_at_any_moment[names]",
    ),
    Mutation(
        "power_some",
        "`synchronous=OFF`",
        "store/sqlite.py",
        '"synchronous=FULL"',
        '"synchronous=OFF"',
        "test_power_loss.py::test_what_was_promised_survives_a_power_loss_at_any_moment[some]",
    ),
    Mutation(
        "kill_failpoint",
        "a batch that is taken up again inserts its lines again",
        "work/batch_intake.py",
        "if line.number > known and",
        "if line.number > 0 and",
        "test_kill.py::test_a_kill_at_a_failpoint_loses_and_doubles_nothing[batch.lines_committed]",
    ),
    Mutation(
        "disk_full",
        "a full database is an internal error",
        "store/faults.py",
        '("database or disk is full", "No space left on device")',
        '("No space left on device",)',
        "test_disk.py::test_a_full_disk_refuses_new_work_keeps_what_it_has_and_recovers[row]",
    ),
    Mutation(
        "disk_full",
        "an answer that cannot be kept yet is dropped",
        "work/worker.py",
        "            except (Unavailable, *OUTAGES) as error:\n",
        "            except (Unavailable, *OUTAGES) as error:\n                return None\n",
        "test_disk.py::test_a_full_disk_refuses_new_work_keeps_what_it_has_and_recovers[long]",
    ),
    Mutation(
        "kill_syscall",
        "`journal_mode=OFF`",
        "store/sqlite.py",
        '"journal_mode=WAL"',
        '"journal_mode=OFF"',
        "test_syscalls.py::test_a_kill_inside_a_system_call_loses_and_doubles_nothing",
    ),
    Mutation(
        "eio_sync",
        "a commit that the disk refused counts as made",
        "store/faults.py",
        "        if any(said in cause for said in _UNUSABLE):\n",
        "        if any(said in cause for said in _UNUSABLE):\n            return\n"
        "        if any(said in cause for said in _UNUSABLE):\n",
        "test_syscalls.py::test_a_sync_that_fails_is_not_taken_for_one_that_succeeded[2..6]",
    ),
    Mutation(
        "eio_object",
        "an object that was not published counts as stored",
        "objects/directory.py",
        "            await _run(key, file.publish, target)\n",
        "            try:\n                await _run(key, file.publish, target)\n"
        "            except StoreUnavailable:\n                pass\n",
        "test_disk.py::test_an_error_at_each_step_of_an_object_loses_nothing",
    ),
    Mutation(
        "lock_held",
        "no patience with a lock",
        "store/sqlite.py",
        '"busy_timeout=30000"',
        '"busy_timeout=0"',
        "test_time.py::test_a_lock_that_another_process_holds_costs_only_time",
    ),
    Mutation(
        "stopped",
        "the time that a process stood still counts against its leases",
        "work/leases.py",
        "        self._seen = observe_beats(self._seen, held, now)\n",
        "        looked_at = getattr(self, '_looked_at', now)\n"
        "        self._seen, self._looked_at = observe_beats(self._seen, held, looked_at), now\n",
        "test_time.py::test_a_process_that_was_stopped_past_its_leases_changes_no_result",
    ),
    Mutation(
        "clock",
        "leases go by the wall clock",
        "work/leases.py",
        "        now = self._plane.clock.monotonic()\n",
        "        now = self._plane.clock.now().timestamp()\n",
        "test_time.py::test_a_forgotten_lease_is_taken_back_though_the_clock_went_back",
    ),
    Mutation(
        "lease_lost",
        "a lost lease is not taken back",
        "work/leases.py",
        "        if lost:\n",
        "        if not held:\n",
        "test_time.py::test_a_worker_that_forgot_its_lease_is_followed_by_another",
    ),
    Mutation(
        "two_planes",
        "a lost lease is not taken back",
        "work/leases.py",
        "        if lost:\n",
        "        if not held:\n",
        "test_postgres.py::test_what_one_control_plane_leaves_the_other_finishes_once",
    ),
    Mutation(
        "duplicates",
        "the key is not sent to the queue",
        "work/submission.py",
        "            idempotency_key=_checked_key(terms.idempotency_key),\n",
        "            idempotency_key=None,\n",
        "test_time.py::test_one_key_from_twenty_threads_is_one_request",
    ),
    Mutation(
        "s3",
        "a store that is away counts as a body that is lost",
        "work/asking.py",
        "            return Outage(failure) if isinstance(error, OUTAGES) else failure\n",
        "            return REQUEST_LOST\n",
        "test_s3.py::test_an_object_store_in_trouble_loses_and_doubles_nothing[away]",
    ),
    Mutation(
        "postgres",
        "a unit that runs again inserts nothing",
        "store/postgres.py",
        "            unless_done.callback(session.rollback)\n",
        "",
        "test_postgres.py::test_a_postgresql_that_crashes_again_and_again_loses_and_doubles_nothing",
    ),
]


def broken(mutation: Mutation, folder: Path) -> subprocess.CompletedProcess[str]:
    """The row's tests on a control plane with the mutation, whose source is put into `folder`."""
    copy = folder / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / mutation.file
    source = path.read_text()
    assert source.count(mutation.before) == 1, f"{mutation.name}: {mutation.file} has changed"
    path.write_text(source.replace(mutation.before, mutation.after))
    python_path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*PYTEST, str(TESTS / mutation.test)],
        cwd=TESTS.parents[1],
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
