"""What this machine has."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tidegate_controlplane import machine
from tidegate_controlplane.domain.gpus import MachineGpu


def test_a_container_bounds_the_memory_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CGROUP_LIMITS", (tmp_path / "absent", limit))
    total = psutil.virtual_memory().total
    for text, expected in (("1048576\n", 1048576), ("max\n", total), (str(2**62), total)):
        limit.write_text(text)
        assert machine.memory_bytes() == expected


@pytest.mark.parametrize(
    ("says", "status", "found"),
    [
        (
            "NVIDIA H200, 143771\nNVIDIA H200, 143771",
            0,
            MachineGpu("NVIDIA H200", 143771 * 1024**2, count=2),
        ),
        ("No devices were found", 6, None),
        ("", 0, None),
        ("NVIDIA Thor, [N/A]", 0, None),
    ],
)
def test_the_drivers_tool_says_which_gpu_there_is(
    says: str,
    status: int,
    found: MachineGpu | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{says}'\nexit {status}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine.own_gpu() == found
    assert machine.capabilities().gpu == found


def test_a_machine_without_the_tool_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.own_gpu() is None


def test_what_is_promised_is_what_this_version_does() -> None:
    found = machine.capabilities()
    assert found.provisioners == {"local"}
    assert {precision.value for precision in found.precisions} == {"fp32", "bf16", "int8", "int4"}
    assert found.cores >= 1
    assert found.memory_bytes == machine.memory_bytes() - machine.PLATFORM_BYTES
