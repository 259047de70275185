"""Work that was handed in: one invocation, or a batch of them."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike

from tidegate.answers import BatchResult, ModelAnswer
from tidegate.client.pump import Pump
from tidegate.client.stream import Stream
from tidegate.protocol import work
from tidegate.routes import batches, invocations, table_batch


class Invocation:
    """A durable request. It goes on without this object: keep the `id` to find it again."""

    def __init__(self, pump: Pump, view: work.Invocation) -> None:
        self._pump = pump
        self._view = view

    @property
    def view(self) -> work.Invocation:
        """What the server last said about it."""
        return self._view

    @property
    def id(self) -> str:
        return self._view.id

    @property
    def status(self) -> work.InvocationState:
        """Its state when last seen; `refresh()` looks again."""
        return self._view.status

    def refresh(self) -> Invocation:
        """Look again; returns itself."""
        self._view = self._pump.run(invocations.get(self.id))
        return self

    def result(self, timeout_s: float | None = None) -> ModelAnswer:
        """What the model answered, waiting for it.

        Raises InvocationFailed when it ended otherwise, WaitTimeout after `timeout_s` seconds.
        """
        if not self.status.is_final:
            self._view = self._pump.run(invocations.finished(self.id, timeout_s))
        return self._pump.run(invocations.result(self._view))

    def content(self) -> Stream[bytes]:
        """The answer of one that succeeded as bytes, in pieces: for one too large to hold."""
        return self._pump.stream(invocations.content(self._view))

    def events(self) -> Stream[work.InvocationEvent]:
        """What happens to it until its end: states, and text and progress while it runs.

        Text is not durable: `text_begins` says that what came before is void.
        """
        return self._pump.stream(invocations.events(self.id))

    def redrive(self) -> Invocation:
        """Run it again when it failed or is dead; returns itself."""
        self._view = self._pump.run(invocations.redrive(self.id))
        return self

    def cancel(self) -> Invocation:
        """Ask for it to end without a result; returns itself."""
        self._view = self._pump.run(invocations.cancel(self.id))
        return self

    def delete(self) -> None:
        """Remove the request and the result now. Raises Conflict before it is finished."""
        self._pump.run(invocations.delete(self.id))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status.value}>"


class Batch:
    """A file of requests. It goes on without this object: keep the `id` to find it again."""

    def __init__(self, pump: Pump, view: work.BatchObject) -> None:
        self._pump = pump
        self._view = view

    @property
    def view(self) -> work.BatchObject:
        """What the server last said about it."""
        return self._view

    @property
    def id(self) -> str:
        return self._view.id

    @property
    def status(self) -> work.BatchStatus:
        """Its state when last seen; `refresh()` looks again."""
        return self._view.status

    @property
    def counts(self) -> work.BatchCounts:
        """Lines in all, completed and failed, when last seen."""
        return self._view.request_counts

    def refresh(self) -> Batch:
        """Look again; returns itself."""
        self._view = self._pump.run(batches.get(self.id))
        return self

    def wait(
        self,
        timeout_s: float | None = None,
        on_progress: Callable[[work.BatchObject], None] | None = None,
    ) -> Batch:
        """Wait until it is completed; `on_progress` sees every change. Returns itself.

        Raises BatchFailed when it ended otherwise, WaitTimeout after `timeout_s` seconds.
        """
        self._view = self._pump.run(batches.finished(self.id, timeout_s, on_progress))
        batches.completed(self._view)
        return self

    def results(self) -> Stream[BatchResult]:
        """The lines that were answered, in no promised order, waiting for the batch's end."""
        return self._pump.stream(batches.results(self.id))

    def errors(self) -> Stream[BatchResult]:
        """The lines that failed, waiting for the batch's end."""
        return self._pump.stream(batches.errors(self.id))

    def cancel(self) -> Batch:
        """Ask for it to end; what was answered stays readable. Returns itself."""
        self._view = self._pump.run(batches.cancel(self.id))
        return self

    def retry(self) -> Batch:
        """A new batch of the lines that this one did not answer. Raises Conflict."""
        return Batch(self._pump, self._pump.run(batches.retry(self.id)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status.value}>"


class TableBatch(Batch):
    """A batch over a table of this machine, to which its answers come back."""

    def __init__(self, pump: Pump, view: work.BatchObject, job: table_batch.TableJob) -> None:
        super().__init__(pump, view)
        self._job = job

    def write(
        self,
        output: str | PathLike[str],
        timeout_s: float | None = None,
        on_progress: Callable[[work.BatchObject], None] | None = None,
    ) -> None:
        """Wait for its end, and write every row with its answer or its error.

        Raises WaitTimeout, TableError when it cannot be written, and BatchFailed after it was when
        the batch ended before it was completed.
        """
        self._view = self._pump.run(batches.finished(self.id, timeout_s, on_progress))
        if self._view.status is not work.BatchStatus.FAILED:
            self._pump.run(table_batch.collect(self._view, self._job, output))
        batches.completed(self._view)
