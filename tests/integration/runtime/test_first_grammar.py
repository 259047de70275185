"""A replica's first grammar finds what it needs: nothing is made while others are answered."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from tests.integration.runtime.conftest import write_config
from tests.integration.runtime.loads import ZYGOTE, first_grammar

PATTERN = "[a-c]{4}"


@pytest.mark.parametrize(("is_warm", "thread"), [(False, "vocabulary_0"), (True, ZYGOTE)])
def test_the_vocabulary_is_read_once_and_before_a_replica_is_ready(
    artifact_of: Callable[..., Path],
    tiny_llama: Path,
    cache_dir: Path,
    tmp_path: Path,
    is_warm: bool,
    thread: str,
) -> None:
    root = str(artifact_of(tiny_llama))
    config = write_config(tmp_path, cache_dir, source=root, precision="auto")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        found = process.submit(first_grammar, config, PATTERN, is_warm=is_warm).result()
    assert found.when_ready == [thread]
    assert re.fullmatch(PATTERN, found.answer)
    assert found.when_answered == [thread]
