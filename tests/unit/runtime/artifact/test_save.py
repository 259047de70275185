"""What the machine lacks while tensors are written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tidegate_runtime.artifact.save import resumable, save_tensors
from tidegate_runtime.errors import ReplicaUnavailable


def test_tensors_are_written_as_they_are_also_views_of_others(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    save_tensors({"turned": whole.T}, tmp_path / "a.safetensors")
    assert torch.equal(load_file(tmp_path / "a.safetensors")["turned"], whole.T)


def test_an_error_of_the_operating_system_is_one(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a.safetensors"
    with pytest.raises(FileNotFoundError) as caught:
        save_tensors({"a": torch.zeros(1)}, path)
    assert caught.value.filename == str(path)


def test_a_full_disk_is_said_with_what_is_kept() -> None:
    remedy = "free some space and start again: what is done"
    with pytest.raises(ReplicaUnavailable, match=remedy), resumable(Path("heads")):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_other_errors_are_not_put_down_to_the_disk() -> None:
    with pytest.raises(PermissionError), resumable(Path("heads")):
        raise PermissionError(errno.EACCES, "Permission denied")
