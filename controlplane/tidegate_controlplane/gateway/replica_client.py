"""The client for talking to replicas: over HTTP, or through SageMaker where an address says so."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType

import aiohttp

from tidegate.protocol.replica import PRIORITY_HEADER, PROJECT_HEADER, REQUEST_HEADER
from tidegate_controlplane.gateway.hop import Question, ReplicaFailed, ReplicaGone, Reply
from tidegate_controlplane.gateway.replica import Endpoint
from tidegate_controlplane.gateway.sagemaker import Invoker, is_sagemaker
from tidegate_controlplane.gateway.watch import onward_headers

CONNECT_S = 5.0
IDLE_CONNECTION_S = 2.0
"""Shorter than a replica keeps one open, so that a request is not sent into a closing one."""
READ_BYTES = 32 * 1024
"""Of one answer, in memory: a replica is read from no faster than the client takes it."""


class ReplicaClient:
    """As many connections as needed, no proxy, no patience of its own: deadlines are the caller's.

    Made inside the event loop, and closed by leaving it as a context.
    """

    def __init__(self, aws_profile: str | None = None) -> None:
        """`aws_profile` signs what goes to SageMaker; without one, what AWS finds around it."""
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("user-agent",),
            auto_decompress=False,
            read_bufsize=READ_BYTES,
        )
        self._invoker = Invoker(self._http, aws_profile)

    async def __aenter__(self) -> ReplicaClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.close()

    async def send(self, endpoint: Endpoint, question: Question) -> Reply:
        """The answer's head. Raises ReplicaFailed, and through SageMaker also ReplicaFull and
        DeadlinePassed. The caller closes what is returned."""
        try:
            if is_sagemaker(endpoint.url):
                return await self._invoker.ask(endpoint, question)
            return await self._post(endpoint, question)
        except aiohttp.ClientConnectorError as error:
            raise ReplicaGone(type(error).__name__) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ReplicaFailed(type(error).__name__) from error

    def can_be_probed(self, endpoint: Endpoint) -> bool:
        """Whether it has a route that says how it is; SageMaker watches its copies itself."""
        return not is_sagemaker(endpoint.url)

    def probe(
        self, endpoint: Endpoint, patience: aiohttp.ClientTimeout
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Ask for a sign of life. Entering raises aiohttp's errors and TimeoutError."""
        return self._http.get(endpoint.url.rstrip("/") + "/readyz", timeout=patience)

    async def _post(self, endpoint: Endpoint, question: Question) -> Reply:
        return await self._http.post(
            endpoint.url.rstrip("/") + question.path,
            data=question.body,
            headers={
                "authorization": f"Bearer {endpoint.token}",
                "content-type": "application/json",
                "accept-encoding": "identity",
                REQUEST_HEADER: question.request_id,
                PROJECT_HEADER: question.ask.project_id,
                PRIORITY_HEADER: str(question.ask.priority.value),
                **onward_headers(),
            },
            allow_redirects=False,
        )
