"""Which library follows a grammar: llguidance beside xgrammar, over a real tokenizer.

    python -m benchmarks.structured --tokenizer DIR/tokenizer.json

Compile time of schemas as people write them, the mask of every token of a text that fits, which
keywords of JSON Schema are kept, and what grammar bombs do. `pip install xgrammar` for the second.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from benchmarks.hardware import hardware, versions
from benchmarks.structured_cases import BOMBS, KEYWORDS, SCHEMAS
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

RESULT = Path("benchmarks/results/structured.json")
BOMB_S = 10.0
RUNS = 5


class Contender(Protocol):
    """A library with its vocabulary read."""

    def start(self, schema: str) -> Any:
        """A matcher at the start, its first mask computed. Raises when the schema is refused."""
        ...

    def mask(self, matcher: Any) -> None: ...

    def take(self, matcher: Any, token: int) -> None: ...

    def accepts(self, matcher: Any, text: str) -> bool:
        """Whether a whole text fits."""
        ...


class Llguidance:
    """With the limits and the whitespace that are served."""

    def __init__(self, path: Path) -> None:
        import llguidance

        from tidegate_runtime.grammar.definition import LIMITS, definition

        self._tokenizer = llguidance.LLTokenizer(path.read_text(), eos_token=[2])
        self._define: Callable[[str], str] = lambda text: definition("json", text, lenient=False)
        self._matcher = llguidance.LLMatcher
        self._limits = LIMITS
        self._row = np.zeros(-(-self._tokenizer.vocab_size // 32), dtype=np.int32)

    def start(self, schema: str) -> Any:
        made = self._matcher(
            self._tokenizer, self._define(schema), log_level=0, limits=self._limits
        )
        if made.is_error():
            raise ValueError(made.get_error()[:200])
        self.mask(made)
        return made

    def mask(self, matcher: Any) -> None:
        matcher.unsafe_compute_mask_ptr(self._row.ctypes.data, self._row.nbytes)

    def take(self, matcher: Any, token: int) -> None:
        if not matcher.consume_token(token):
            raise ValueError(matcher.get_error()[:200])

    def accepts(self, matcher: Any, text: str) -> bool:
        tokens = self._tokenizer.tokenize_str(text)
        return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


class Xgrammar:
    """In one thread, as a process beside an engine would run it."""

    def __init__(self, path: Path) -> None:
        import xgrammar

        pieces = Tokenizer.from_file(str(path))
        vocabulary = [pieces.id_to_token(token) for token in range(pieces.get_vocab_size())]
        info = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.BYTE_LEVEL, stop_token_ids=[2])
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self._matcher = xgrammar.GrammarMatcher
        self._row = xgrammar.allocate_token_bitmask(1, info.vocab_size)

    def start(self, schema: str) -> Any:
        made = self._matcher(self._compiler.compile_json_schema(schema, strict_mode=False))
        self.mask(made)
        return made

    def mask(self, matcher: Any) -> None:
        matcher.fill_next_token_bitmask(self._row)

    def take(self, matcher: Any, token: int) -> None:
        if not matcher.accept_token(token):
            raise ValueError(f"token {token} is not allowed")

    def accepts(self, matcher: Any, text: str) -> bool:
        return bool(matcher.accept_string(text) and matcher.accept_token(2))


CONTENDERS: Mapping[str, Callable[[Path], Contender]] = {
    "llguidance": Llguidance,
    "xgrammar": Xgrammar,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenizer", type=Path, required=True)
    path = parser.parse_args().tokenizer
    found = {name: measure(name, path) for name in CONTENDERS}
    meta = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m benchmarks.structured",
        "hardware": hardware(),
        "versions": versions(Path(sys.executable), CONTENDERS),
    }
    RESULT.write_text(json.dumps({**meta, "libraries": found}, indent=1) + "\n")
    show(found)


def measure(name: str, path: Path) -> dict[str, Any]:
    """All figures of one library."""
    library = CONTENDERS[name](path)
    pieces = Tokenizer.from_file(str(path))
    return {
        "schemas": {
            title: measure_schema(library, json.dumps(schema), pieces.encode(text).ids)
            for title, (schema, text) in SCHEMAS.items()
        },
        "keywords": {title: kept(library, *case) for title, case in KEYWORDS.items()},
        "bombs": {title: set_off(library, json.dumps(bomb)) for title, bomb in BOMBS.items()},
    }


def measure_schema(library: Contender, schema: str, tokens: list[int]) -> dict[str, float]:
    """Milliseconds to compile, and microseconds for the masks of a text that fits."""
    compiles, masks = [], []
    for _ in range(RUNS):
        began = time.perf_counter()
        matcher = library.start(schema)
        compiles.append(time.perf_counter() - began)
        for token in tokens:
            began = time.perf_counter()
            library.mask(matcher)
            masks.append(time.perf_counter() - began)
            library.take(matcher, token)
    masks.sort()
    return {
        "compile_ms": statistics.median(compiles) * 1e3,
        "mask_us": statistics.median(masks) * 1e6,
        "mask_p99_us": masks[int(len(masks) * 0.99)] * 1e6,
    }


def kept(library: Contender, schema: Any, good: str, bad: str) -> str:
    """What becomes of a keyword: kept, refused, ignored, or too strict."""
    text = json.dumps(schema)
    try:
        library.start(text)
    except (ValueError, RuntimeError):
        return "refused"
    if library.accepts(library.start(text), bad):
        return "ignored"
    return "kept" if library.accepts(library.start(text), good) else "too strict"


def set_off(library: Contender, schema: str) -> str:
    """Seconds until a bomb is compiled or refused, in a process that is killed after a while."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    process = context.Process(target=_try, args=(theirs, library, schema), daemon=True)
    process.start()
    theirs.close()
    try:
        said = str(mine.recv()) if mine.poll(BOMB_S) else f"killed after {BOMB_S:g} s"
    except EOFError:
        said = "the process crashed"
    process.kill()
    process.join()
    return said


def _try(connection: Any, library: Contender, schema: str) -> None:
    began = time.perf_counter()
    try:
        library.start(schema)
        outcome = "compiled"
    except (ValueError, RuntimeError):
        outcome = "refused"
    connection.send(f"{outcome} in {time.perf_counter() - began:.3f} s")


def show(found: Mapping[str, Any]) -> None:
    """One table for the schemas, one for what happens to keywords and bombs."""
    console = Console(width=120)
    speed = Table("schema", *(f"{name}: compile ms, mask µs (p99)" for name in found))
    for title in SCHEMAS:
        cells = [library["schemas"][title] for library in found.values()]
        speed.add_row(
            title,
            *(
                f"{cell['compile_ms']:.1f}, {cell['mask_us']:.0f} ({cell['mask_p99_us']:.0f})"
                for cell in cells
            ),
        )
    console.print(speed)
    rest = Table("keyword or bomb", *found)
    for part, titles in (("keywords", KEYWORDS), ("bombs", BOMBS)):
        for title in titles:
            rest.add_row(title, *(library[part][title] for library in found.values()))
    console.print(rest)


if __name__ == "__main__":
    main()
