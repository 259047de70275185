"""Tensors to disk, with the errors of the operating system as what they are."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from tidegate_runtime.artifact.guard import EXHAUSTED
from tidegate_runtime.errors import ReplicaUnavailable


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file. Raises OSError, where safetensors has an error of its own."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


@contextlib.contextmanager
def resumable(output: Path) -> Iterator[None]:
    """Work that goes on where it was: what the machine lacks now is said with the remedy.

    Raises ReplicaUnavailable (ResourcesExhausted).
    """
    try:
        yield
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        raise ReplicaUnavailable(
            "ResourcesExhausted",
            f"cannot write {str(output)!r}: {error.strerror}; free some space and start again: "
            "what is done is kept",
        ) from error
