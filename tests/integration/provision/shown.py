"""Which cases each provisioner has passed, kept in pytest's cache for the table."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.provision.conformance import Conformance

KEPT = "tidegate/provisioners"
CASES = [name for name in vars(Conformance) if name.startswith("test_")]
"""In the order in which they are written."""


class Shown:
    """A plugin that collects the outcomes of this session over those of earlier ones."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._shown: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = dict(report.user_properties)
        name = report.nodeid.rpartition("::")[2]
        if "place" not in told or name not in CASES:
            return
        if report.when == "call" or report.outcome != "passed":
            shown = self._shown.setdefault(str(told["place"]), {"cases": {}})
            shown["stands_on"] = told["stands_on"]
            shown["cases"][name] = _outcome(report)

    def pytest_sessionfinish(self) -> None:
        cache = getattr(self._config, "cache", None)  # which can be switched off
        if not self._shown or cache is None or hasattr(self._config, "workerinput"):
            return
        kept: dict[str, Any] = cache.get(KEPT, {})
        for place, shown in self._shown.items():
            before = kept.get(place, {}).get("cases", {})
            kept[place] = shown | {"cases": before | shown["cases"]}
        cache.set(KEPT, kept)


def _outcome(report: pytest.TestReport) -> str:
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.outcome)
