"""The Triton kernels compile to machine code for a GPU that is not here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("compile_kernels.py")
SHARED_MEMORY_BYTES = 227 * 1024


def test_every_kernel_compiles_for_hopper_and_multiplies_on_its_matrix_units(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert len(lines) == 4
    for _, _, on_matrix_units, shared in lines:
        assert on_matrix_units == "True"
        assert int(shared) < SHARED_MEMORY_BYTES
