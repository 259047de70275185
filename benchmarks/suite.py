"""The whole of a run: weights and artifacts, the machine's bounds, the systems, the result."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bound import PRECISIONS, Machine, Shape, bound_rows, share_rows
from benchmarks.catalogue import PEERS, System, python_of
from benchmarks.energy import Meter, counters
from benchmarks.hardware import hardware, versions
from benchmarks.measure import STARTS, Figures, Plan, Run
from benchmarks.perplexity import windows
from benchmarks.process import Command
from benchmarks.prose import prose
from benchmarks.report import meta_path
from benchmarks.rows import Row, write_rows
from benchmarks.setup import own_folder
from benchmarks.weights import Model, bundled_model
from benchmarks.workloads import (
    CONTEXT_TOKENS,
    GENERATIONS,
    MAX_STREAMS,
    WORKS,
    Prompts,
    quick,
)

OWN_PACKAGES = ("tidegate", "torch", "transformers")
MEMORY_BYTES = 1 << 31
"""A working set that no cache holds."""


@dataclass(frozen=True)
class Order:
    """How to run, whoever takes part."""

    folder: Path
    threads: int
    quick: bool
    command: str


@dataclass(frozen=True)
class Result:
    """The figures, and under which circumstances they were found."""

    rows: list[Row]
    meta: dict[str, Any]

    def write(self, path: Path) -> None:
        """The rows there, the circumstances beside them."""
        write_rows(path, self.rows)
        meta_path(path).write_text(json.dumps(self.meta, indent=2, ensure_ascii=False) + "\n")


class Suite:
    """Brings every system to the start, and keeps those out that cannot run."""

    def __init__(self, order: Order, say: Callable[[str], None]) -> None:
        self._order = order
        self._say = say
        self._absent: dict[str, tuple[str, str]] = {}
        """State and reason of the systems that do not even start."""
        self._prepared: dict[Path, str | None] = {}
        """Why these weights could not be made, or None when they are there."""

    def run(self, systems: Sequence[System]) -> Result:
        """Measure these systems in one run. Raises LocalError without the bundled model."""
        order, model = self._order, self.model()
        present = [system for system in systems if self._is_ready(system, model)]
        text = prose()
        tokens = model.tokens(text)
        plan = Plan(
            commands={system.name: self._command_of(system, model) for system in present},
            works=quick(WORKS) if order.quick else WORKS,
            windows=windows(tokens),
            starts=1 if order.quick else STARTS,
        )
        meter = Meter(counters())
        shape = model.shape()
        self._say("the bounds of this machine")
        before = measure_machine(shape, order.threads)
        run = Run(plan, Prompts(tokens, model.frame()), meter, self._say)
        figures = run.measure(present)
        machine = before.best_of(measure_machine(shape, order.threads))
        rows = [row for each in figures for row in each.rows()]
        bounds = bound_rows(shape, machine, GENERATIONS)
        shares = share_rows(rows, bounds, {each.name: each.bound_by for each in systems})
        meta = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": order.command,
            "hardware": hardware(),
            "threads": order.threads,
            "versions": versions(Path(sys.executable), OWN_PACKAGES),
            "model": model.gguf.name,
            "prose_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "energy": meter.available,
            "systems": {each.name: self._state(each, figures) for each in systems},
        }
        return Result([*rows, *shares, *bounds], meta)

    def model(self) -> Model:
        """The bundled model, and the folder that its other forms are kept in."""
        own_folder(self._order.folder)
        (self._order.folder / "logs").mkdir(exist_ok=True)
        return bundled_model(self._order.folder / "models")

    def commands(self, systems: Sequence[System]) -> dict[str, Command]:
        """How those that can run are started, by name."""
        model = self.model()
        present = [system for system in systems if self._is_ready(system, model)]
        return {system.name: self._command_of(system, model) for system in present}

    def _is_ready(self, system: System, model: Model) -> bool:
        """Whether its interpreter and its weights are there; the weights are made if need be."""
        if not self._python(system).exists():
            self._absent[system.name] = ("missing", "not installed; run `make bench-setup`")
            return False
        path = model.path(system.weights, system.precision)
        if path not in self._prepared:
            self._say(f"weights: {path.name}")
            self._prepared[path] = model.prepare(system.weights, system.precision)
        why = self._prepared[path]
        if why is not None:
            self._absent[system.name] = ("failed", why)
        return why is None

    def _python(self, system: System) -> Path:
        if system.environment is None:
            return Path(sys.executable)
        return python_of(self._order.folder, system.environment)

    def _command_of(self, system: System, model: Model) -> Command:
        python = self._python(system).absolute()
        arguments = [str(python), "-m", system.module]
        arguments += ["--model", str(model.path(system.weights, system.precision).absolute())]
        arguments += ["--threads", str(self._order.threads), "--streams", str(MAX_STREAMS)]
        arguments += ["--context-tokens", str(CONTEXT_TOKENS)]
        arguments += ["--speculate"] if system.speculate else []
        env = {"OMP_NUM_THREADS": str(self._order.threads)}
        if system.preload is not None:
            env["LD_PRELOAD"] = str(python.parent.parent / system.preload)
        log = self._order.folder / "logs" / f"{system.name.replace(' ', '-')}.log"
        return Command(arguments, env, log)

    def _state(self, system: System, figures: Sequence[Figures]) -> dict[str, Any]:
        found = next((each for each in figures if each.system == system), None)
        state, why = self._absent.get(system.name, ("measured", ""))
        about: dict[str, Any] = {"precision": system.precision, "state": state, "why": why}
        if system.environment is not None and found is not None:
            packages = PEERS[system.environment].packages
            about["versions"] = versions(self._python(system), packages)
        if found is None:
            return about
        if found.failure is not None:
            about |= {"state": "failed", "why": found.failure}
        about["first_start_s"] = round(found.first_start_s, 3)
        about["others_cores"] = round(found.others_s / found.busy_s, 3) if found.busy_s else 0.0
        about["notes"] = list(dict.fromkeys(found.notes))
        about["samples"] = {
            f"{workload} {metric}": values
            for (workload, metric, _), values in found.samples.items()
        }
        return about


def measure_machine(shape: Shape, threads: int) -> Machine:
    """In a process of its own, whose memory is then gone."""
    sets = {each: int(shape.weight_bytes(each)) for each in PRECISIONS} | {"any": MEMORY_BYTES}
    command = [sys.executable, "-m", "benchmarks.roofline", "--threads", str(threads)]
    for name, size in sets.items():
        command += ["--working-set", f"{name}={size}"]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=os.environ)
    found: Mapping[str, Any] = json.loads(done.stdout)
    return Machine(found["read_bytes_per_s"], found["operations_per_s"])
