"""What a library raises about a model becomes a refusal that names the model."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import transformers
from safetensors import SafetensorError

from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable

EXHAUSTED = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
T = TypeVar("T")


def guarded(root: Path, load: Callable[[], T]) -> T:
    """Run a loader of another library; a model that it cannot read is refused with its first line.

    What the machine lacks now (memory, disk, descriptors) is no fault of the model.
    """
    try:
        return load()
    except MemoryError as error:
        raise ReplicaUnavailable(
            "OutOfMemory", f"{str(root)!r} does not fit into memory now; free some, or use less"
        ) from error
    except SafetensorError as error:
        raise ModelRefused(
            "BrokenModel", f"{str(root)!r} has broken weights ({error}); fetch the model again"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        if getattr(error, "errno", None) in EXHAUSTED or "allocate memory" in line:
            raise ReplicaUnavailable("ResourcesExhausted", f"{str(root)!r}: {line}") from error
        raise ModelRefused(
            "UnsupportedModel",
            f"{str(root)!r} cannot be loaded ({line}); use a model that transformers "
            f"{transformers.__version__} supports",
        ) from error
