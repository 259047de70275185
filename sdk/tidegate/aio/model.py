"""A model that is served under a name: all that a key for inference may do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Unpack

from tidegate.aio.pump import AsyncPump
from tidegate.aio.stream import AsyncStream
from tidegate.aio.work import AsyncBatch, AsyncInvocation, AsyncTableBatch
from tidegate.answers import ChatAnswer, ChatChunk, Embeddings, Ranks, Scores, TextAnswer
from tidegate.protocol.tokenize import TokenizeResponse
from tidegate.routes import batch_input, batches, generate, invocations, table_batch, tokens


class AsyncServedModel:
    """Ask it now (`chat`, `stream`, `complete`, `embed`), or hand in work (`submit`, `batch`).

    `timeout` is in seconds of silence; the client's own when it is None.
    """

    def __init__(self, pump: AsyncPump, name: str) -> None:
        self._pump = pump
        self._name = name

    @property
    def name(self) -> str:
        """What requests put into `model`."""
        return self._name

    async def chat(
        self,
        messages: generate.Messages,
        *,
        timeout: float | None = None,
        **sampling: Unpack[generate.ChatSampling],
    ) -> ChatAnswer:
        """The model's answer, whole. Text alone is one message of the user."""
        return await self._pump.run(generate.chat(self.name, messages, sampling, timeout))

    def stream(
        self,
        messages: generate.Messages,
        *,
        timeout: float | None = None,
        **sampling: Unpack[generate.StreamSampling],
    ) -> AsyncStream[ChatChunk]:
        """The model's answer as it is written; each chunk's `text` is what it adds."""
        return self._pump.stream(generate.stream(self.name, messages, sampling, timeout))

    async def complete(
        self,
        prompt: str | list[str],
        *,
        timeout: float | None = None,
        **sampling: Unpack[generate.TextSampling],
    ) -> TextAnswer:
        """How the model continues the prompt."""
        return await self._pump.run(generate.complete(self.name, prompt, sampling, timeout))

    async def embed(
        self,
        inputs: str | list[str],
        *,
        dimensions: int | None = None,
        timeout: float | None = None,
    ) -> Embeddings:
        """One vector per input."""
        return await self._pump.run(generate.embed(self.name, inputs, dimensions, timeout))

    async def rerank(
        self,
        query: str,
        documents: list[str],
        *,
        top_n: int | None = None,
        timeout: float | None = None,
    ) -> Ranks:
        """The documents by their relevance to the query, the best `top_n` of them."""
        return await self._pump.run(generate.rerank(self.name, query, documents, top_n, timeout))

    async def score(
        self, text_1: str | list[str], text_2: str | list[str], *, timeout: float | None = None
    ) -> Scores:
        """A score for one text with each of many, or for each pair of two lists."""
        return await self._pump.run(generate.score(self.name, text_1, text_2, timeout))

    async def tokenize(
        self,
        text: generate.Messages,
        *,
        timeout: float | None = None,
        **options: Unpack[tokens.Tokenizing],
    ) -> TokenizeResponse:
        """The tokens of a prompt, or of a conversation as `chat` would send it."""
        return await self._pump.run(tokens.tokenize(self.name, text, options, timeout))

    async def detokenize(self, ids: Sequence[int], *, timeout: float | None = None) -> str:
        """The text of tokens, special ones included."""
        return await self._pump.run(tokens.detokenize(self.name, ids, timeout))

    async def submit(
        self,
        work: invocations.Work,
        *,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        expires_in_s: float | None = None,
        deadline_s: float | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        webhook: str | None = None,
        result_ttl_s: float | None = None,
        **sampling: Unpack[generate.ChatSampling],
    ) -> AsyncInvocation:
        """Hand in a prompt, a conversation or a whole body, to be answered later.

        `timeout_s` bounds a run; it expires if not begun within `expires_in_s`, and is given up if
        not finished within `deadline_s`; its result is kept for `result_ttl_s`. All are seconds.
        `priority` is from -5 to 5, and the higher runs first. `webhook` is the id of one that is
        told how it ends, whatever its events. The key, made up when absent, makes sure that a
        repeated request is not a second one.
        """
        body = {**invocations.work_body(self.name, work), **sampling}
        terms: invocations.Terms = {
            "timeout_s": timeout_s,
            "expires_in_s": expires_in_s,
            "deadline_s": deadline_s,
            "priority": priority,
            "max_attempts": max_attempts,
            "webhook": webhook,
            "result_ttl_s": result_ttl_s,
        }
        view = await self._pump.run(invocations.submit(body, idempotency_key, terms))
        return AsyncInvocation(self._pump, view)

    async def batch(
        self,
        source: batch_input.BatchSource,
        *,
        endpoint: str = generate.CHAT,
        metadata: Mapping[str, str] | None = None,
        completion_window: str = batches.WINDOW,
        output_expires_after_s: int | None = None,
        webhook: str | None = None,
    ) -> AsyncBatch:
        """Answer every line of a JSONL file, or every item of an iterable of prompts or bodies.

        A line that names no model gets this one. `webhook` is the id of one that is told how the
        batch ends. Raises ConfigurationError for a file that cannot be read.
        """
        terms = batches.Terms(metadata, completion_window, output_expires_after_s, webhook)
        with batch_input.opened(source, endpoint, self.name) as (file, filename):
            started = await self._pump.run(batches.start(file, filename, endpoint, terms))
        return AsyncBatch(self._pump, started)

    async def batch_table(
        self,
        source: str | PathLike[str],
        *,
        column: str | None = None,
        template: Mapping[str, Any] | None = None,
        id_column: str | None = None,
        endpoint: str = generate.CHAT,
        metadata: Mapping[str, str] | None = None,
        completion_window: str = batches.WINDOW,
        webhook: str | None = None,
        resume: str | None = None,
    ) -> AsyncTableBatch:
        """Answer every row of a Parquet, CSV or JSONL file, of a column or by a template.

        `resume` is the id of a batch that was begun from the same table, when whoever began it is
        gone. Raises TableError for a table that cannot be read.
        """
        job = table_batch.job(
            source, self.name, endpoint, column=column, template=template, id_column=id_column
        )
        terms = batches.Terms(metadata, completion_window, webhook=webhook)
        started = await self._pump.run(table_batch.begin(job, terms, resume))
        return AsyncTableBatch(self._pump, started, job)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def __eq__(self, other: Any) -> bool:
        return type(other) is type(self) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self._name)
