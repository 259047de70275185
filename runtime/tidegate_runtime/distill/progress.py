"""How far it is: a bar on a terminal, a line now and then elsewhere. Always on standard error."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeRemainingColumn

_LINE_EVERY_S = 10.0


class Bars:
    """One bar for each part."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
        self._bars = Progress(*columns, TextColumn("{task.fields[note]}"), console=self._console)
        self._tasks: dict[str, TaskID] = {}
        self._told_s = float("-inf")

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, highlight=False)

    def step(self, name: str, done: int, total: int, note: str = "") -> None:
        """So many steps of a part are done."""
        if self._console.is_terminal:
            self._show(name, done, total, note)
        elif done == total or time.monotonic() - self._told_s > _LINE_EVERY_S:
            self._told_s = time.monotonic()
            self.say(f"{name}: {done} of {total}{note and f', {note}'}")

    def close(self) -> None:
        """Leave the bars as they stand."""
        self._bars.stop()

    def _show(self, name: str, done: int, total: int, note: str) -> None:
        if not self._tasks:
            self._bars.start()
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, note=note)
        self._bars.update(self._tasks[name], completed=done, note=note)
