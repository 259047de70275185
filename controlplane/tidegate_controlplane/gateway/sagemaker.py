"""A replica that is a copy of a SageMaker inference component: asked by `InvokeEndpoint`.

Its address is `sagemaker://REGION/ENDPOINT/COMPONENT`. SageMaker passes on one path, a body and
one free header, so the path that is meant and whose request it is travel in that header. The
request is signed (Signature Version 4) and then sent like any other, so that streaming, deadlines
and cancellation are those of every replica. What can come in pieces comes by
`InvokeEndpointWithResponseStream`, also where it is wanted whole, since SageMaker waits longer for
a stream; its frames are opened here.

SageMaker limits (its model hosting FAQ) a body to 25 MB, an answer in one piece to 60 s, and a
stream to 8 minutes.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.session import Session
from yarl import URL

from tidegate_controlplane.gateway.assembly import STREAMED, asking_stream
from tidegate_controlplane.gateway.hop import OK, Question, ReplicaFailed, Reply
from tidegate_controlplane.gateway.replica import Endpoint
from tidegate_controlplane.gateway.sagemaker_refusal import MOST_BYTES, understood
from tidegate_controlplane.gateway.sagemaker_stream import PartReader
from tidegate_controlplane.gateway.sagemaker_whole import assembled

SCHEME = "sagemaker://"
ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
COMPONENT_HEADER = "X-Amzn-SageMaker-Inference-Component"
STREAM_TYPE_HEADER = "X-Amzn-SageMaker-Content-Type"
"""The model's content type; the stream's own is that of its frames."""


def is_sagemaker(url: str) -> bool:
    """Whether a replica with this address is asked through SageMaker."""
    return url.startswith(SCHEME)


@dataclass(frozen=True)
class Address:
    """Where a component answers."""

    region: str
    endpoint: str
    component: str

    @classmethod
    def parse(cls, url: str) -> Address:
        parts = urlsplit(url)
        endpoint, _, component = parts.path.strip("/").partition("/")
        return cls(parts.netloc, endpoint, component)

    @property
    def url(self) -> str:
        return f"{SCHEME}{self.region}/{self.endpoint}/{self.component}"


def attributes(question: Question) -> str:
    """What the runtime's `/invocations` is told of a request: `key=value` joined by `;`.

    SageMaker takes 1,024 visible ASCII characters; the longest request id has 128.
    """
    told = {
        "path": question.path,
        "project": question.ask.project_id,
        "priority": str(question.ask.priority.value),
        "request_id": question.request_id,
    }
    return ";".join(f"{key}={quote(value, safe='/:')}" for key, value in told.items())


class Invoker:
    """Asks components, signing with the credentials of a profile or of the process's surroundings.

    `AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME` is honoured, as by every AWS client.
    """

    def __init__(self, http: aiohttp.ClientSession, profile: str | None = None) -> None:
        self._http = http
        self._profile = profile
        self._session: Session | None = None
        self._services: dict[str, str] = {}
        """Where SageMaker answers, by region."""
        self._lock = threading.Lock()

    async def ask(self, endpoint: Endpoint, question: Question) -> Reply:
        """The answer's head. Raises ReplicaFailed, ReplicaFull, DeadlinePassed."""
        if question.whole and question.path in STREAMED:
            body = await asyncio.to_thread(asking_stream, question.body)
            reply = await self._ask(endpoint, replace(question, body=body, whole=False))
            return assembled(reply, question.path)
        return await self._ask(endpoint, question)

    async def _ask(self, endpoint: Endpoint, question: Question) -> Reply:
        address = Address.parse(endpoint.url)
        # In a thread, because credentials may have to be fetched anew.
        url, headers = await asyncio.to_thread(self._signed, address, question)
        response = await self._http.post(
            url,
            data=question.body,
            headers={**headers, "accept-encoding": "identity"},
            allow_redirects=False,
        )
        if response.status != OK:
            return await _refused(response)
        return response if question.whole else _Streamed(response)

    def _signed(self, address: Address, question: Question) -> tuple[URL, dict[str, str]]:
        verb = "invocations" if question.whole else "invocations-response-stream"
        try:
            session, service = self._service(address.region)
            credentials = session.get_credentials()
            if credentials is None:
                raise ReplicaFailed("there are no AWS credentials to ask it with")
            url = f"{service}/endpoints/{quote(address.endpoint)}/{verb}"
            request = AWSRequest(
                "POST",
                url,
                headers={
                    "content-type": "application/json",
                    COMPONENT_HEADER: address.component,
                    ATTRIBUTES_HEADER: attributes(question),
                },
                data=question.body,
            )
            frozen = credentials.get_frozen_credentials()
            SigV4Auth(frozen, "sagemaker", address.region).add_auth(request)
        except BotoCoreError as error:
            raise ReplicaFailed(f"the request to SageMaker cannot be signed: {error}") from error
        return URL(url, encoded=True), dict(request.headers.items())

    def _service(self, region: str) -> tuple[Session, str]:
        with self._lock:
            if self._session is None:
                self._session = Session(profile=self._profile)
            if region not in self._services:
                client = self._session.create_client("sagemaker-runtime", region_name=region)
                self._services[region] = client.meta.endpoint_url.rstrip("/")
            return self._session, self._services[region]


async def _refused(response: aiohttp.ClientResponse) -> Reply:
    try:
        said = await response.content.read(MOST_BYTES)
    finally:
        response.close()
    kind = response.headers.get("x-amzn-errortype", "")
    return understood(response.status, kind.partition(":")[0], said)


class _Streamed:
    """A model's answer out of the frames that it comes in."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        told = response.headers.get(STREAM_TYPE_HEADER, "")
        self.content_type = told.partition(";")[0].strip()
        self.content = PartReader(response.content)

    def close(self) -> None:
        self._response.close()
