"""Which shared library of kernels this machine uses."""

from __future__ import annotations

from pathlib import Path

from tidegate_runtime.ops import compiler, prebuilt


def library() -> Path:
    """The one that came along, as in an image, or else one that is compiled here.

    Raises CompilerMissing.
    """
    return prebuilt.find(compiler.instructions()) or compiler.library()
