"""An account of AWS, doubled, and a place over it.

Real here: the provisioner, boto3 and its requests, the Pulumi program with its components, the
Automation API, and the containers, which are processes. See docs/aws.md.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import boto3
import httpx
import pytest
from tests.aws_double.cloud import SageMakerCloud
from tests.aws_double.control import Hosted, SageMaker
from tests.aws_double.signature import KEY_ID, REGION, SECRET
from tests.infra_engine.command_double import PulumiDouble
from tests.infra_engine.plugins import invented
from tests.integration.provision.launch import COMMAND, launch
from tests.integration.provision.place import Place

from tidegate.offers import Covers
from tidegate.protocol.resources import PlannedOffer
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.gateway.hop import Question
from tidegate_controlplane.gateway.replica import Ask
from tidegate_controlplane.gateway.replica_client import ReplicaClient
from tidegate_controlplane.gateway.sagemaker import Address
from tidegate_controlplane.provision.aws.keeper import Pace
from tidegate_controlplane.provision.aws.opening import open_aws, session_of
from tidegate_controlplane.provision.aws.place import AwsPlace
from tidegate_controlplane.provision.base import Launch, Notice
from tidegate_controlplane.settings import AwsSettings

PACE = Pace(moving_s=0.02, settled_s=0.05, failed_s=0.2)
SETTINGS = AwsSettings(
    region=REGION,
    state="s3://state/tidegate",
    artifacts="s3://models",
    image="123456789012.dkr.ecr.us-east-1.amazonaws.com/tidegate@sha256:" + 64 * "0",
    execution_role_arn="arn:aws:iam::123456789012:role/tidegate-endpoint",
    subnets=("subnet-1",),
    security_groups=("sg-1",),
    kms_key="arn:aws:kms:us-east-1:123456789012:key/1",
    keep_copies_s=0,
    drift_every_s=0,
)


OFFER = PlannedOffer(
    provider="aws",
    covers=Covers.SAGEMAKER,
    region=REGION,
    instance_type="ml.g6.xlarge",
    gpu="L4",
    gpus=1,
    replicas=1,
    usable_bytes=20 << 30,
    utilisation=0.9,
    usd_per_hour=1.0,
    source="a test",
    as_of=date(2026, 1, 1),
    minimum_usd_per_month=0.0,
)


@pytest.fixture(autouse=True)
def _closed_loops() -> Iterator[None]:
    """Collect the event loops that Pulumi's language server leaves open.

    It closes a program's loop after it has waited for what was left of the program, and does not
    come so far when that ends in an error, as calls to an engine do that was stopped meanwhile.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@cache
def connected(settings: AwsSettings) -> boto3.Session:
    """One for all tests: reading the description of SageMaker takes as long as a test."""
    return session_of(settings)


@dataclass
class Account:
    """An account of the double, and the stacks in a directory."""

    sagemaker: SageMaker
    cloud: SageMakerCloud
    pulumi: PulumiDouble
    directory: Path
    opened: list[AwsPlace] = field(default_factory=list)

    async def open(
        self, settings: AwsSettings = SETTINGS, changed: asyncio.Event | None = None
    ) -> AwsPlace:
        place = await open_aws(
            settings,
            self.directory,
            SystemClock(),
            changed or asyncio.Event(),
            command=lambda: self.pulumi,
            connect=connected,
            pace=PACE,
        )
        self.opened.append(place)
        return place


@pytest.fixture
async def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Account]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(socket, "gethostname", lambda: "here")  # where the double's locks are made
    sagemaker = SageMaker(command=COMMAND, home=tmp_path / "containers")
    cloud = SageMakerCloud(sagemaker=sagemaker)
    async with sagemaker.listening():
        monkeypatch.setenv("AWS_ENDPOINT_URL", sagemaker.url)
        with invented(cloud) as stub:
            plugins = {"aws": stub, "aws-native": stub}
            pulumi = PulumiDouble(tmp_path / "state", plugins)
            made = Account(sagemaker, cloud, pulumi, tmp_path / "aws")
            yield made
            for place in made.opened:
                await place.close()


def aws_launch(behaviour: str = "good", key: str = "rep_1", revision: str = "rev_1") -> Launch:
    """One whose model is in S3, and which may have several replicas."""
    made = launch(behaviour, key)
    told = {"provisioner": "aws", "memory_bytes": 1 << 30, "max_replicas": 4, "offer": OFFER}
    plan = made.plan.model_copy(update=told)
    return replace(made, revision_id=revision, source=f"s3://models/{behaviour}", plan=plan)


@dataclass
class AwsAccount(Place):
    """Inference components of the double."""

    account: Account
    heard: list[Notice] = field(default_factory=list)
    name: ClassVar[str] = "aws"
    patience_s: ClassVar[float] = 60.0
    stands_on: ClassVar[str] = (
        "doubles of SageMaker and of Pulumi's engine; real processes as copies"
    )

    async def crash(self) -> None:
        abandoned = self.account.opened[-1]
        for site in abandoned._sites.values():
            assert site.keeping
            site.keeping.cancel()
        abandoned._sites.clear()
        self.provisioner = await self.account.open()

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        self.account.sagemaker.has_capacity = False
        yield
        self.account.sagemaker.has_capacity = True

    def launch(self, behaviour: str = "good", key: str = "rep_1") -> Launch:
        return aws_launch(behaviour, key)

    def door(self, endpoint: Endpoint) -> str:
        """That of the component's first copy."""
        component = self.account.sagemaker.components.get(Address.parse(endpoint.url).component)
        assert component is None or isinstance(component, Hosted)
        urls = [copy.url for copy in component.running.values() if copy] if component else []
        return urls[0] if urls else "http://127.0.0.1:1"

    async def ask(self, endpoint: Endpoint, **body: Any) -> httpx.Response:
        sent = json.dumps(body).encode()
        question = Question("/v1/embeddings", sent, "req_1", Ask("prj"), whole=True)
        async with ReplicaClient() as client:
            try:
                reply = await client.send(endpoint, question)
            except Exception as error:  # as the gateway would see it
                raise httpx.HTTPError(str(error)) from error
            return httpx.Response(reply.status, content=await reply.content.read())
