"""What a client holds: lists to look through, and things to find by name or id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, BinaryIO, Unpack

from tidegate.client.deployment import Deployment
from tidegate.client.pump import Pump
from tidegate.client.stream import Stream
from tidegate.client.work import Batch, Invocation
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


class Deployments:
    """`client.deployments`."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def get(self, name: str) -> Deployment:
        """Raises NotFound."""
        return Deployment(self._pump, *self._pump.run(deployments.get(name)))

    def list(self, mode: Mode | str | None = None, label: str | None = None) -> Stream[Deployment]:
        """All of them, or those of a mode or with a label (`key=value`)."""
        flow = deployments.listing(mode, label, lambda view: Deployment(self._pump, view))
        return self._pump.stream(flow)

    def delete(self, name: str, wait: bool = True, timeout_s: float | None = 300) -> None:
        """Delete it; with `wait`, return when nothing of it runs any more. Raises NotFound."""
        self._pump.run(deployments.delete(name, wait=wait, timeout_s=timeout_s))


class Rollouts:
    """`client.rollouts`: how new revisions took over."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def list(self, deployment: str | None = None) -> Stream[RolloutView]:
        """All of them, oldest first, or those of the deployment with this name."""
        return self._pump.stream(rollouts.listing(deployment))

    def promote(self, rollout_id: str) -> RolloutView:
        """Let the new revision take all now."""
        return self._pump.run(rollouts.request(rollout_id, "promote"))

    def abort(self, rollout_id: str) -> RolloutView:
        """Send the traffic back to the former revision."""
        return self._pump.run(rollouts.request(rollout_id, "abort"))


class Models:
    """`client.models`: what deployments are made of."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def list(self) -> Stream[ModelView]:
        """Every model and its versions."""
        return self._pump.stream(platform.models())

    def get(self, model_id: str) -> ModelView:
        return self._pump.run(platform.model(model_id))

    def served(self) -> Cards:
        """The names that requests may put into `model`; a key for inference may ask this too."""
        return self._pump.run(platform.served())


class Keys:
    """`client.keys`: API keys."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def create(
        self,
        name: str,
        role: KeyRole | str = KeyRole.INFERENCE,
        requests_per_minute: int | None = 60,
        tokens_per_minute: int | None = 100_000,
    ) -> ApiKeyCreated:
        """A new key; its secret is in `key`, this once. A limit of None means no limit."""
        flow = platform.create_key(name, role, requests_per_minute, tokens_per_minute)
        return self._pump.run(flow)

    def list(self) -> Stream[ApiKeyView]:
        """Every key, revoked ones too, without their secrets."""
        return self._pump.stream(platform.keys())

    def revoke(self, key_id: str) -> ApiKeyView:
        """From now on the key opens nothing."""
        return self._pump.run(platform.revoke_key(key_id))


class Encryption:
    """`client.encryption`: what is sealed at rest, and under which keys."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def get(self) -> EncryptionView:
        """The keys, and what the last pass found."""
        return self._pump.run(platform.encryption())

    def count(self, on_progress: Callable[[EncryptionView], None] | None = None) -> EncryptionView:
        """Look at everything, and say how much is under each key."""
        return self._pump.run(platform.encryption_pass(rewrap=False, on_progress=on_progress))

    def rotate(self, on_progress: Callable[[EncryptionView], None] | None = None) -> EncryptionView:
        """Put everything under the newest key; begun again, it goes on where it was."""
        return self._pump.run(platform.encryption_pass(rewrap=True, on_progress=on_progress))


class Invocations:
    """`client.invocations`."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def get(self, invocation_id: str) -> Invocation:
        """Raises NotFound."""
        return Invocation(self._pump, self._pump.run(invocations.get(invocation_id)))

    def list(
        self, status: work.InvocationState | str | None = None, model: str | None = None
    ) -> Stream[Invocation]:
        """All of them, or those in a state or of a model."""
        flow = invocations.listing(status, model, lambda view: Invocation(self._pump, view))
        return self._pump.stream(flow)

    def submit_file(
        self,
        source: str | PathLike[str] | BinaryIO,
        idempotency_key: str | None = None,
        **terms: Unpack[invocations.Terms],
    ) -> Invocation:
        """Hand in a whole body that a JSON file holds, of up to 1 GiB, sent in pieces.

        Raises ConfigurationError when the path cannot be read.
        """
        with readable(source, None) as (file, _):
            view = self._pump.run(invocations.submit(file, idempotency_key, terms))
        return Invocation(self._pump, view)

    def redrive(self, status: str = "dead", model: str | None = None) -> int:
        """Run again all that ended as `status` (dead or failed); how many there were."""
        return self._pump.run(invocations.redrive_all(status, model))

    def cancel(self, invocation_id: str) -> Invocation:
        """Ask for it to end without a result."""
        return Invocation(self._pump, self._pump.run(invocations.cancel(invocation_id)))

    def delete(self, invocation_id: str) -> work.InvocationDeleted:
        """Remove its request and result now. Raises Conflict before it is finished."""
        return self._pump.run(invocations.delete(invocation_id))


class Batches:
    """`client.batches`."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def create(
        self,
        input_file_id: str,
        endpoint: str,
        metadata: Mapping[str, str] | None = None,
        completion_window: str = batches.WINDOW,
        output_expires_after_s: int | None = None,
        webhook: str | None = None,
    ) -> Batch:
        """Begin on a file that was uploaded before; its window is from `1h` to `7d`."""
        terms = batches.Terms(metadata, completion_window, output_expires_after_s, webhook)
        flow = batches.create(input_file_id, endpoint, terms)
        return Batch(self._pump, self._pump.run(flow))

    def transform(
        self,
        source: TableInput | Mapping[str, Any],
        target: TableOutput | Mapping[str, Any],
        endpoint: str = generate.CHAT,
        metadata: Mapping[str, str] | None = None,
        completion_window: str = batches.WINDOW,
        webhook: str | None = None,
    ) -> Batch:
        """Begin on the tables under one S3 prefix; their rows and answers go under another."""
        terms = batches.Terms(metadata, completion_window, webhook=webhook)
        flow = batches.transform(source, target, endpoint, terms)
        return Batch(self._pump, self._pump.run(flow))

    def get(self, batch_id: str) -> Batch:
        """Raises NotFound."""
        return Batch(self._pump, self._pump.run(batches.get(batch_id)))

    def list(self) -> Stream[Batch]:
        return self._pump.stream(batches.listing(lambda view: Batch(self._pump, view)))

    def cancel(self, batch_id: str) -> Batch:
        """Ask for it to end; what was answered stays readable."""
        return Batch(self._pump, self._pump.run(batches.cancel(batch_id)))

    def retry(self, batch_id: str) -> Batch:
        """A new batch of the lines that an ended one did not answer. Raises Conflict."""
        return Batch(self._pump, self._pump.run(batches.retry(batch_id)))


class Files:
    """`client.files`."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def upload(
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
            return self._pump.run(files.upload(file, name, purpose, expires_after_s))

    def get(self, file_id: str) -> work.FileObject:
        """Raises NotFound."""
        return self._pump.run(files.get(file_id))

    def list(self, purpose: str | None = None, order: str | None = None) -> Stream[work.FileObject]:
        """Newest first, or oldest first with the order `asc`."""
        return self._pump.stream(files.listing(purpose, order))

    def delete(self, file_id: str) -> work.FileDeleted:
        return self._pump.run(files.delete(file_id))

    def content(self, file_id: str) -> bytes:
        """The whole file in memory; `lines` reads a large one piece by piece."""
        return self._pump.run(files.content(file_id))

    def lines(self, file_id: str) -> Stream[str]:
        """The file's lines, as they arrive."""
        return self._pump.stream(files.content_lines(file_id, str))
