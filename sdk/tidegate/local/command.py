"""Commands of the heavier packages, each in a child process."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tidegate.errors import LocalError


def run_command(name: str, module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run `python -m MODULE ARGUMENTS`; its progress goes to standard error as it comes.

    Returns the object that it writes. Raises LocalError with its reason when it refuses or fails,
    and by `name` when it ends without a word.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    return _answer(name, done.stdout, done.returncode)


def run_told(
    name: str, module: str, arguments: Sequence[str], told: Callable[[str], None]
) -> dict[str, Any]:
    """`run_command` for a child whose progress is for us: `told` gets each line of it."""
    command = [sys.executable, "-m", module, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for line in child.stderr:
            told(line.rstrip())
        said = child.stdout.read()
    return _answer(name, said, child.returncode)


def _answer(name: str, said: str | bytes, code: int) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        raise LocalError(f"'{name}' {how} before it had a result; see above") from None
    if error := answer.get("error"):
        raise LocalError(f"{error['message']} ({error['reason']})")
    return answer


def run_beside(module: str, arguments: Sequence[str]) -> int:
    """Run `python -m MODULE ARGUMENTS` on our own terminal; the status that it ends with.

    Ctrl-C reaches it too, and it decides when it ends: we wait.
    """
    with subprocess.Popen([sys.executable, "-m", module, *arguments]) as child:
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            status = child.wait()
        finally:
            signal.signal(signal.SIGINT, before)
    return 128 - status if status < 0 else status


def require_installed(what: str, names: Sequence[str], extra: str) -> None:
    """Raises LocalError naming what is missing, and the extra that brings it."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        remedy = f"pip install 'tidegate[{extra}]'"
        raise LocalError(f"the {what} is not installed ({missing[0]} is missing): {remedy}")
