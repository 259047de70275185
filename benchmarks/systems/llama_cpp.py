"""llama.cpp through the low-level API of llama-cpp-python: several sequences in one batch."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import Any

import llama_cpp  # type: ignore[import-not-found]
import numpy as np
from benchmarks.driver import Options, run

BATCH_TOKENS = 2048
UBATCH_TOKENS = 512
CLEAR_DATA = False

Entry = tuple[int, int, int, bool]
"""Token, position, sequence, and whether its logits are wanted."""


class LlamaCpp:
    """One model, and one context for each number of sequences it was asked for."""

    def __init__(self, options: Options) -> None:
        self._options = options
        silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
        self._silent = silent  # the library keeps the pointer only
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(str(options.model).encode(), parameters)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(self._model)
        )
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._contexts: dict[int, Any] = {}

    def generate(self, prompts: list[list[int]], max_tokens: int) -> list[int]:
        context = self._context(len(prompts))
        made: list[list[int]] = [[] for _ in prompts]
        entries = (
            (token, position, sequence, position == len(prompt) - 1)
            for sequence, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        )
        for chunk in _chunks(entries):
            for sequence, logits in self._decode(context, chunk):
                made[sequence].append(int(logits.argmax()))
        for step in range(max_tokens - 1):
            chunk = [
                (tokens[-1], len(prompt) + step, sequence, True)
                for sequence, (prompt, tokens) in enumerate(zip(prompts, made, strict=True))
            ]
            for sequence, logits in self._decode(context, chunk):
                made[sequence].append(int(logits.argmax()))
        return [len(tokens) for tokens in made]

    def logprobs(self, window: list[int]) -> list[float]:
        context = self._context(1)
        chunk = [(token, position, 0, True) for position, token in enumerate(window)]
        logits = [row.astype(np.float64) for _, row in self._decode(context, chunk)]
        return [
            float(row[token] - row.max() - np.log(np.exp(row - row.max()).sum()))
            for row, token in zip(logits[:-1], window[1:], strict=True)
        ]

    def _context(self, sequences: int) -> Any:
        """A context that is empty again, for this many sequences."""
        if sequences not in self._contexts:
            parameters = llama_cpp.llama_context_default_params()
            parameters.n_ctx = sequences * -(-self._options.context_tokens // 256) * 256
            parameters.n_seq_max = sequences
            parameters.n_batch = BATCH_TOKENS
            parameters.n_ubatch = UBATCH_TOKENS
            parameters.n_threads = parameters.n_threads_batch = self._options.threads
            self._contexts[sequences] = llama_cpp.llama_init_from_model(self._model, parameters)
        context = self._contexts[sequences]
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), CLEAR_DATA)
        return context

    def _decode(self, context: Any, chunk: list[Entry]) -> Iterator[tuple[int, Any]]:
        """Run a batch; (sequence, logits) of every entry that wants them."""
        batch = self._batch
        batch.n_tokens = len(chunk)
        for row, (token, position, sequence, wanted) in enumerate(chunk):
            batch.token[row] = token
            batch.pos[row] = position
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequence
            batch.logits[row] = wanted
        if status := llama_cpp.llama_decode(context, batch):
            raise RuntimeError(f"llama_decode answered {status} for {len(chunk)} tokens")
        for row, (_, _, sequence, wanted) in enumerate(chunk):
            if wanted:
                found = llama_cpp.llama_get_logits_ith(context, row)
                yield sequence, np.ctypeslib.as_array(found, shape=(self._vocabulary,))


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    chunk: list[Entry] = []
    for entry in entries:
        chunk.append(entry)
        if len(chunk) == BATCH_TOKENS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


if __name__ == "__main__":
    run(LlamaCpp)
