"""What a client holds: lists to look through, and things to find by name or id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, BinaryIO, Unpack

from tidegate.aio.deployment import AsyncDeployment
from tidegate.aio.pump import AsyncPump
from tidegate.aio.stream import AsyncStream
from tidegate.aio.work import AsyncBatch, AsyncInvocation
from tidegate.protocol import work
from tidegate.protocol.batch import TableInput, TableOutput
from tidegate.protocol.openai import ModelCard
from tidegate.protocol.resources import (
    ApiKeyCreated,
    ApiKeyView,
    EncryptionView,
    KeyRole,
    ModelView,
    RolloutView,
)
from tidegate.routes import batches, deployments, files, generate, invocations, platform, rollouts
from tidegate.routes.file_input import readable
from tidegate.spec import Mode

Cards = list[ModelCard]


class AsyncDeployments:
    """`client.deployments`."""

    def __init__(self, pump: AsyncPump) -> None:
        self._pump = pump

    async def get(self, name: str) -> AsyncDeployment:
        """Raises NotFound."""
        return AsyncDeployment(self._pump, *await self._pump.run(deployments.get(name)))

    def list(
        self, mode: Mode | str | None = None, label: str | None = None
    ) -> AsyncStream[AsyncDeployment]:
        """All of them, or those of a mode or with a label (`key=value`)."""
        flow = deployments.listing(mode, label, lambda view: AsyncDeployment(self._pump, view))
        return self._pump.stream(flow)

    async def delete(self, name: str, wait: bool = True, timeout_s: float | None = 300) -> None:
        """Delete it; with `wait`, return when nothing of it runs any more. Raises NotFound."""
        await self._pump.run(deployments.delete(name, wait=wait, timeout_s=timeout_s))


class AsyncRollouts:
    """`client.rollouts`: how new revisions took over."""

    def __init__(self, pump: AsyncPump) -> None:
        self._pump = pump

    def list(self, deployment: str | None = None) -> AsyncStream[RolloutView]:
        """All of them, oldest first, or those of the deployment with this name."""
        return self._pump.stream(rollouts.listing(deployment))

    async def promote(self, rollout_id: str) -> RolloutView:
        """Let the new revision take all now."""
        return await self._pump.run(rollouts.request(rollout_id, "promote"))

    async def abort(self, rollout_id: str) -> RolloutView:
        """Send the traffic back to the former revision."""
        return await self._pump.run(rollouts.request(rollout_id, "abort"))


class AsyncModels:
    """`client.models`: what deployments are made of."""

    def __init__(self, pump: AsyncPump) -> None:
        self._pump = pump

    def list(self) -> AsyncStream[ModelView]:
        """Every model and its versions."""
        return self._pump.stream(platform.models())

    async def get(self, model_id: str) -> ModelView:
        return await self._pump.run(platform.model(model_id))

    async def served(self) -> Cards:
        """The names that requests may put into `model`; a key for inference may ask this too."""
        return await self._pump.run(platform.served())


class AsyncKeys:
    """`client.keys`: API keys."""

    def __init__(self, pump: AsyncPump) -> None:
        self._pump = pump

    async def create(
        self,
        name: str,
        role: KeyRole | str = KeyRole.INFERENCE,
        requests_per_minute: int | None = 60,
        tokens_per_minute: int | None = 100_000,
    ) -> ApiKeyCreated:
        """A new key; its secret is in `key`, this once. A limit of None means no limit."""
        flow = platform.create_key(name, role, requests_per_minute, tokens_per_minute)
        return await self._pump.run(flow)

    def list(self) -> AsyncStream[ApiKeyView]:
        """Every key, revoked ones too, without their secrets."""
        return self._pump.stream(platform.keys())

    async def revoke(self, key_id: str) -> ApiKeyView:
        """From now on the key opens nothing."""
        return await self._pump.run(platform.revoke_key(key_id))


class AsyncEncryption:
    """`client.encryption`: what is sealed at rest, and under which keys."""

    def __init__(self, pump: AsyncPump) -> None:
        self._pump = pump

    async def get(self) -> EncryptionView:
        """The keys, and what the last pass found."""
        return await self._pump.run(platform.encryption())

    async def count(
        self, on_progress: Callable[[EncryptionView], None] | None = None
    ) -> EncryptionView:
        """Look at everything, and say how much is under each key."""
        return await self._pump.run(platform.encryption_pass(rewrap=False, on_progress=on_progress))

    async def rotate(
        self, on_progress: Callable[[EncryptionView], None] | None = None
    ) -> EncryptionView:
        """Put everything under the newest key; begun again, it goes on where it was."""
        return await self._pump.run(platform.encryption_pass(rewrap=True, on_progress=on_progress))


class AsyncInvocations:
    """`client.invocations`."""

    def __init__(self, pump: AsyncPump) -> None:
        self._pump = pump

    async def get(self, invocation_id: str) -> AsyncInvocation:
        """Raises NotFound."""
        return AsyncInvocation(self._pump, await self._pump.run(invocations.get(invocation_id)))

    def list(
        self, status: work.InvocationState | str | None = None, model: str | None = None
    ) -> AsyncStream[AsyncInvocation]:
        """All of them, or those in a state or of a model."""
        flow = invocations.listing(status, model, lambda view: AsyncInvocation(self._pump, view))
        return self._pump.stream(flow)

    async def submit_file(
        self,
        source: str | PathLike[str] | BinaryIO,
        idempotency_key: str | None = None,
        **terms: Unpack[invocations.Terms],
    ) -> AsyncInvocation:
        """Hand in a whole body that a JSON file holds, of up to 1 GiB, sent in pieces.

        Raises ConfigurationError when the path cannot be read.
        """
        with readable(source, None) as (file, _):
            view = await self._pump.run(invocations.submit(file, idempotency_key, terms))
        return AsyncInvocation(self._pump, view)

    async def redrive(self, status: str = "dead", model: str | None = None) -> int:
        """Run again all that ended as `status` (dead or failed); how many there were."""
        return await self._pump.run(invocations.redrive_all(status, model))

    async def cancel(self, invocation_id: str) -> AsyncInvocation:
        """Ask for it to end without a result."""
        return AsyncInvocation(self._pump, await self._pump.run(invocations.cancel(invocation_id)))

    async def delete(self, invocation_id: str) -> work.InvocationDeleted:
        """Remove its request and result now. Raises Conflict before it is finished."""
        return await self._pump.run(invocations.delete(invocation_id))


class AsyncBatches:
    """`client.batches`."""

    def __init__(self, pump: AsyncPump) -> None:
        self._pump = pump

    async def create(
        self,
        input_file_id: str,
        endpoint: str,
        metadata: Mapping[str, str] | None = None,
        completion_window: str = batches.WINDOW,
        output_expires_after_s: int | None = None,
        webhook: str | None = None,
    ) -> AsyncBatch:
        """Begin on a file that was uploaded before; its window is from `1h` to `7d`."""
        terms = batches.Terms(metadata, completion_window, output_expires_after_s, webhook)
        flow = batches.create(input_file_id, endpoint, terms)
        return AsyncBatch(self._pump, await self._pump.run(flow))

    async def transform(
        self,
        source: TableInput | Mapping[str, Any],
        target: TableOutput | Mapping[str, Any],
        endpoint: str = generate.CHAT,
        metadata: Mapping[str, str] | None = None,
        completion_window: str = batches.WINDOW,
        webhook: str | None = None,
    ) -> AsyncBatch:
        """Begin on the tables under one S3 prefix; their rows and answers go under another."""
        terms = batches.Terms(metadata, completion_window, webhook=webhook)
        flow = batches.transform(source, target, endpoint, terms)
        return AsyncBatch(self._pump, await self._pump.run(flow))

    async def get(self, batch_id: str) -> AsyncBatch:
        """Raises NotFound."""
        return AsyncBatch(self._pump, await self._pump.run(batches.get(batch_id)))

    def list(self) -> AsyncStream[AsyncBatch]:
        return self._pump.stream(batches.listing(lambda view: AsyncBatch(self._pump, view)))

    async def cancel(self, batch_id: str) -> AsyncBatch:
        """Ask for it to end; what was answered stays readable."""
        return AsyncBatch(self._pump, await self._pump.run(batches.cancel(batch_id)))

    async def retry(self, batch_id: str) -> AsyncBatch:
        """A new batch of the lines that an ended one did not answer. Raises Conflict."""
        return AsyncBatch(self._pump, await self._pump.run(batches.retry(batch_id)))


class AsyncFiles:
    """`client.files`."""

    def __init__(self, pump: AsyncPump) -> None:
        self._pump = pump

    async def upload(
        self,
        source: str | PathLike[str] | BinaryIO,
        purpose: str = "batch",
        filename: str | None = None,
        expires_after_s: int | None = None,
    ) -> work.FileObject:
        """Send a file, by its path or as an open, seekable binary file; it lasts 30 days.

        Raises ConfigurationError when the path cannot be read.
        """
        with readable(source, filename) as (file, name):
            return await self._pump.run(files.upload(file, name, purpose, expires_after_s))

    async def get(self, file_id: str) -> work.FileObject:
        """Raises NotFound."""
        return await self._pump.run(files.get(file_id))

    def list(
        self, purpose: str | None = None, order: str | None = None
    ) -> AsyncStream[work.FileObject]:
        """Newest first, or oldest first with the order `asc`."""
        return self._pump.stream(files.listing(purpose, order))

    async def delete(self, file_id: str) -> work.FileDeleted:
        return await self._pump.run(files.delete(file_id))

    async def content(self, file_id: str) -> bytes:
        """The whole file in memory; `lines` reads a large one piece by piece."""
        return await self._pump.run(files.content(file_id))

    def lines(self, file_id: str) -> AsyncStream[str]:
        """The file's lines, as they arrive."""
        return self._pump.stream(files.content_lines(file_id, str))
