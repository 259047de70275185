"""What this machine has."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tidegate_controlplane import machine


def test_a_container_bounds_the_memory_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CGROUP_LIMITS", (tmp_path / "absent", limit))
    total = psutil.virtual_memory().total
    for text, expected in (("1048576\n", 1048576), ("max\n", total), (str(2**62), total)):
        limit.write_text(text)
        assert machine.memory_bytes() == expected


def test_what_is_promised_is_what_this_version_does() -> None:
    found = machine.capabilities()
    assert found.provisioners == {"local"}
    assert {precision.value for precision in found.precisions} == {"fp32", "bf16", "int8", "int4"}
    assert found.cores >= 1
    assert found.memory_bytes == machine.memory_bytes() - machine.PLATFORM_BYTES
