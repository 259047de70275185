"""Replica processes forked by a zygote, which has imported everything: a start takes a moment.

One zygote serves until it ends or the code on disk changes; then the next one takes its place. The
replicas it forked are children of this process and do not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from tidegate.protocol.replica import Telemetry
from tidegate_controlplane.provision.base import StartFailed
from tidegate_controlplane.provision.child import ChildProcess
from tidegate_controlplane.provision.log import last_line
from tidegate_controlplane.provision.start import spawn, start_failure
from tidegate_controlplane.provision.subreaper import become_subreaper
from tidegate_controlplane.provision.zygote import Zygote, ZygoteGone

logger = logging.getLogger("tidegate.zygote")
ZYGOTE = (sys.executable, "-m", "tidegate_runtime.zygote")
PACKAGES = ("tidegate", "tidegate_runtime")
LIBRARIES = ("torch", "transformers", "tokenizers", "litestar")
ATTEMPTS = 2
LOOK_S = 5.0
"""Between looks at the code on disk."""


def zygote_command(telemetry: Telemetry) -> tuple[str, ...]:
    """The command line of a zygote whose replicas will tell what they do in this way."""
    traces = ["--traces"] if telemetry.otlp_endpoint else []
    return (*ZYGOTE, "--log-format", telemetry.log_format, *traces)


class ZygoteStarter:
    """Implements `Starter`. `open` it, so that a zygote is there before the first replica."""

    def __init__(self, log: Path, warm_bytes: int, command: Sequence[str] = ZYGOTE) -> None:
        self._log = log
        self._warm_bytes = warm_bytes
        self._command = command
        self._current: Zygote | None = None
        self._successor: Zygote | None = None
        self._running: list[Zygote] = []
        """Every one whose process was not seen to end, such as one that finishes its forks."""
        self._succession: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._unwarmable: set[str] = set()
        self._closed = False

    def open(self) -> None:
        """Start the first zygote. Raises StartFailed."""
        become_subreaper()
        self._current = self._begin(code_on_disk(), {})
        self._watching = asyncio.create_task(self._watch())

    async def start(
        self, config: Path, log: Path, token: str, on_exit: Callable[[], None]
    ) -> ChildProcess:
        gone = ""
        for _ in range(ATTEMPTS):
            try:
                zygote = self._usable()
                return ChildProcess(await zygote.fork(config, log, token), on_exit)
            except ZygoteGone as error:
                gone = last_line(self._log) or str(error)
            except OSError as error:
                raise start_failure("watch a replica process", error) from error
        raise StartFailed(f"the zygote ended before it forked a replica: {gone}")

    def warm(self, config: Path, model: str) -> None:
        if self._current and model not in self._unwarmable:
            self._current.warm(config, model)

    async def close(self) -> None:
        self._closed = True
        tasks = [task for task in (self._watching, self._succession) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for zygote in self._running:
            zygote.close()
            zygote.process.send(signal.SIGKILL)
        await asyncio.gather(*(zygote.process.wait() for zygote in self._running))

    def _usable(self) -> Zygote:
        """One that lives; an older one while the one with the new code still imports."""
        if self._closed:
            raise StartFailed("the platform is stopping")
        present = self._current
        if present is None or not present.is_open:
            self._current = present = self._begin(code_on_disk(), self._take_over(present))
        return present

    async def _watch(self) -> NoReturn:
        """Look for other code regularly; a start is not kept waiting for it."""
        while True:
            await asyncio.sleep(LOOK_S)
            code, present = await asyncio.to_thread(code_on_disk), self._current
            known = [zygote.code for zygote in (present, self._successor) if zygote]
            if present and present.is_open and code not in known:
                try:
                    self._replace(present, code)
                except StartFailed as error:
                    logger.error("no zygote of the new code yet: %s", error)

    def _replace(self, present: Zygote, code: str) -> None:
        logger.info("the code on disk changed; another zygote imports it")
        if self._successor:
            self._successor.close()
            self._successor = None
        if self._succession:
            self._succession.cancel()
        self._successor = self._begin(code, present.warmed)
        self._succession = asyncio.create_task(self._succeed(self._successor))

    async def _succeed(self, successor: Zygote) -> None:
        """Once the successor can fork, let the present one go; stay with it when it never can."""
        try:
            await successor.imported()
        except ZygoteGone:
            logger.error("the new code cannot be imported: %s", last_line(self._log))
            return
        former, self._current, self._successor = self._current, successor, None
        if former:
            former.retire()

    def _begin(self, code: str, warm: Mapping[str, Path]) -> Zygote:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise start_failure("start a zygote", error) from error
        arguments = [
            *(*self._command, "--socket", str(theirs.fileno())),
            *("--parent-pid", str(os.getpid()), "--warm-bytes", str(self._warm_bytes)),
        ]
        try:
            pid = spawn(arguments, self._log, {}, keep=[theirs.fileno()])
            process = ChildProcess(pid, self._revive)
        except OSError as error:
            ours.close()
            raise start_failure("start a zygote", error) from error
        finally:
            theirs.close()
        ours.settimeout(0)
        zygote = Zygote(process, ours, code)
        self._running = [each for each in self._running if each.process.returncode is None]
        self._running.append(zygote)
        for model, config in warm.items():
            zygote.warm(config, model)
        return zygote

    def _revive(self) -> None:
        """Replace one that had worked at once; one that had not, when a replica is to start."""
        present = self._current
        if self._closed or present is None or present.process.returncode is None:
            return
        present.close()
        if present.has_imported:
            logger.warning(
                "the zygote ended with %d; another one starts", present.process.returncode
            )
            with contextlib.suppress(StartFailed):
                self._current = self._begin(code_on_disk(), self._take_over(present))

    def _take_over(self, former: Zygote | None) -> Mapping[str, Path]:
        """What a former zygote kept ready; what it ended over is not tried again."""
        if former is None:
            return {}
        if model := former.choked_on:
            logger.warning("the zygote ended as it warmed %s; it is left cold from now on", model)
            self._unwarmable.add(model)
        return former.warmed


def code_on_disk() -> str:
    """Names the code that a zygote started now would import: another name, another code.

    What is being replaced meanwhile has a name too, and another one once it is there.
    """
    files = [path for name in PACKAGES for root in _roots(name) for path in _sources(root)]
    newest = max(map(_modified_ns, files), default=0)
    libraries = " ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    return f"{len(files)} files, newest {newest}; {libraries}"


def _sources(root: Path) -> Iterator[Path]:
    """Not by `Path.rglob`, which raises when a directory goes while it looks."""
    for directory, _, names in os.walk(root):
        yield from (Path(directory, name) for name in names if name.endswith(".py"))


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "missing"


def _roots(package: str) -> list[Path]:
    found = importlib.util.find_spec(package)
    return [] if found is None else [Path(root) for root in found.submodule_search_locations or ()]
