"""What the engine's tests need of torch, and a second process for models that are divided."""

import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Pipe

import pytest
import torch

from tidegate_runtime.server.ranks import Ranks


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tensors of a few numbers are not worth a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    """This process and another, for any number of models one after another."""
    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.runtime.follower", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    made = Ranks([(process.pid, ours)])
    yield made
    made.close()
    process.returncode = 0
