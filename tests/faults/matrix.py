"""The fault matrix: what is done to the platform, and what must hold all the same.

Tests note their verdicts here; at the end of a session the sums are printed, and kept in pytest's
cache as `tidegate/faults`, from which `table.py` writes the table of docs/reliability.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.faults.checker import Verdict


@dataclass(frozen=True)
class Row:
    """One kind of fault."""

    fault: str
    promise: str
    """The P-number of DESIGN §8."""
    injected: str


ROWS = {
    "kill_failpoint": Row(
        "kill -9 between any two durable steps, and again while the next process takes over",
        "P1, P21",
        "SIGKILL at each named failpoint, then at the first step of recovery",
    ),
    "kill_syscall": Row(
        "kill -9 inside the N-th write, fsync or rename",
        "P1, P21",
        "`strace --inject=…:signal=SIGKILL:when=N` on the whole process",
    ),
    "power_lost": Row(
        "power loss: nothing that was not synced is there",
        "P1, P21",
        "crash states of a journal of all writes of SQLite (an apsw VFS) and of the objects",
    ),
    "power_names": Row(
        "power loss: names are there, contents that were not synced are not",
        "P1, P21",
        "the same journal: renamed files that are empty",
    ),
    "power_some": Row(
        "power loss: any part of what was not synced is there, sectors torn",
        "P1, P21",
        "the same journal: each unsynced write, name and sector by chance",
    ),
    "eio_sync": Row(
        "a failing disk: fsync says EIO",
        "P1",
        "`strace --inject=fsync,fdatasync:error=EIO:when=N`",
    ),
    "eio_object": Row(
        "a failing disk under the objects",
        "P1",
        "EIO at each failpoint of the object store",
    ),
    "disk_full": Row(
        "a full disk, then space again",
        "P14",
        "the data directory on a tmpfs of a few MiB that is filled and emptied",
    ),
    "lock_held": Row(
        "another process holds the database's write lock for a while",
        "P1",
        "`BEGIN IMMEDIATE` by a second process for 2 s",
    ),
    "stopped": Row(
        "a process that is stopped past its leases and goes on",
        "P3, P4",
        "SIGSTOP for twice the lease, then SIGCONT, while requests run",
    ),
    "clock": Row(
        "the wall clock jumps a day forth and back",
        "P13",
        "the wall clock that the process is given, moved while requests wait and run; `faketime`",
    ),
    "postgres": Row(
        "PostgreSQL crashes and comes back, again and again",
        "P1, P21",
        "`pg_ctl stop -m immediate`, then start, while clients submit and requests run",
    ),
    "two_planes": Row(
        "two control planes on one PostgreSQL; one is killed, or each stopped past its leases",
        "P1, P3, P4",
        "SIGKILL of the one, or SIGSTOP and SIGCONT of both in turns, while requests run",
    ),
    "lease_lost": Row(
        "a worker that forgot its lease",
        "P4",
        "an error between the claim's commit and the run",
    ),
    "duplicates": Row(
        "the same submission from 20 threads at once, and a kill among them",
        "P2",
        "one Idempotency-Key, SIGKILL after the commit and before the answer",
    ),
    "s3": Row(
        "an object store that is slow, refuses, or hangs up at 99 % of an object",
        "P1",
        "a TCP proxy in front of a real S3 server",
    ),
}


@dataclass
class Sum:
    runs: int = 0
    accepted: int = 0
    lost: int = 0
    doubled: int = 0


@dataclass
class Ledger:
    """What the runs of one session came to, row by row."""

    sums: dict[str, Sum] = field(default_factory=dict)

    def note(self, row: str, verdict: Verdict) -> None:
        """Count a run, then insist that it was good."""
        assert row in ROWS, f"there is no row {row!r} in the fault matrix"
        found = self.sums.setdefault(row, Sum())
        found.runs += 1
        found.accepted += verdict.accepted
        found.lost += len(verdict.lost)
        found.doubled += len(verdict.doubled) + len(verdict.wrong)
        assert verdict.is_good, verdict

    def lines(self) -> list[str]:
        return [
            f"{row:16} runs {found.runs:4}  accepted {found.accepted:5}  "
            f"lost {found.lost:3}  doubled {found.doubled:3}"
            for row, found in self.sums.items()
        ]
