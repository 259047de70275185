"""Named points of the control plane at which a fault can be made to happen.

In the source a failpoint is a comment on a line of its own, `# failpoint submit.stored`, so a
platform that is installed has nothing of it: no call, no branch, no switch. A process that is to
fail imports the package through `install`, which compiles each such comment as a call of `hit`
(decision 088).

A fault is written `NAME=ACTION@N`: at the N-th time that a process comes to NAME it does ACTION,

    kill          end by SIGKILL
    eio, enospc   raise that OSError, once
    pause:PATH    wait, with the thread it is in, until PATH exists
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path

PACKAGE = "tidegate_controlplane"
_MARK = re.compile(r"^(?P<indent> *)# failpoint (?P<name>[a-z_]+\.[a-z_]+)$", re.MULTILINE)
_ERRORS = {"eio": errno.EIO, "enospc": errno.ENOSPC}


@dataclass(frozen=True)
class Fault:
    """What happens where, and at which time that it is come to, counted from 1."""

    name: str
    action: str
    at: int = 1

    def __str__(self) -> str:
        return f"{self.name}={self.action}@{self.at}"

    @classmethod
    def parse(cls, text: str) -> Fault:
        name, _, rest = text.partition("=")
        action, _, at = rest.rpartition("@")
        return cls(name, action, int(at))


_faults: list[Fault] = []
_hits: Counter[str] = Counter()
_lock = threading.Lock()


def arm(faults: list[Fault]) -> None:
    """From now on these happen in this process."""
    _faults[:] = faults
    _hits.clear()


def hit(name: str) -> None:
    """This thread came to the failpoint `name`."""
    with _lock:
        _hits[name] += 1
        due = [fault for fault in _faults if (fault.name, fault.at) == (name, _hits[name])]
    for fault in due:
        _happen(fault)


def _happen(fault: Fault) -> None:
    action, _, path = fault.action.partition(":")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "pause":
        while not Path(path).exists():
            time.sleep(0.01)
    else:
        number = _ERRORS[action]
        raise OSError(number, os.strerror(number), fault.name)


def names(package: Path) -> list[str]:
    """Every failpoint in the source of a package, in the order of its files."""
    return [
        match["name"]
        for path in sorted(package.rglob("*.py"))
        for match in _MARK.finditer(path.read_text())
    ]


def compiled_in(source: str) -> str:
    """`source` with its failpoints as calls; no line changes its number."""
    return _MARK.sub(r'\g<indent>__failpoint__("\g<name>")', source)


class _Loader(SourceFileLoader):
    def path_stats(self, path: str) -> dict[str, object]:
        raise OSError("neither read nor write a .pyc: an installed platform would find it")

    def source_to_code(self, data, path, *, _optimize=-1):  # type: ignore[override]
        source = importlib.util.decode_source(bytes(data))
        return super().source_to_code(compiled_in(source).encode(), path, _optimize=_optimize)

    def exec_module(self, module) -> None:
        module.__dict__["__failpoint__"] = hit
        super().exec_module(module)


class _Finder:
    """Finds the package where it lies, and loads it with its failpoints."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != PACKAGE:
            return None
        for folder in path or sys.path:
            place = Path(folder) / fullname.rpartition(".")[2]
            for file in (place / "__init__.py", place.with_suffix(".py")):
                if file.is_file():
                    return importlib.util.spec_from_file_location(
                        fullname, file, loader=_Loader(fullname, str(file))
                    )
        return None


def install() -> None:
    """Compile failpoints into what this process imports of the control plane from now on."""
    if any(name.partition(".")[0] == PACKAGE for name in sys.modules):
        raise RuntimeError(f"{PACKAGE} is imported already, without failpoints")
    sys.meta_path.insert(0, _Finder())
