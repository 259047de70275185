"""Keys of a key service, against a server that speaks AWS KMS."""

from __future__ import annotations

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.encryption import kms as kms_module
from tidegate_controlplane.encryption.envelopes import Envelopes
from tidegate_controlplane.encryption.errors import KeyMissing, KeysUnavailable, ObjectDamaged
from tidegate_controlplane.encryption.key_file import FileKeys
from tidegate_controlplane.encryption.keyring import Keyring
from tidegate_controlplane.encryption.kms import KmsKeys
from tidegate_controlplane.encryption.open import open_keyring
from tidegate_controlplane.errors import StartError
from tidegate_controlplane.settings import EncryptionSettings

NAME = "prj_1/requests/inv_1"


@pytest.fixture(scope="module")
def kms_url():
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def kms(kms_url, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": kms_url,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return boto3.client("kms")


@pytest.fixture
def key(kms):
    return kms.create_key()["KeyMetadata"]["KeyId"]


class Clock(SystemClock):
    ahead_s = 0.0

    def monotonic(self):
        return super().monotonic() + self.ahead_s


class Counting:
    """A client that counts what is asked of it."""

    def __init__(self, client):
        self._client = client
        self.asked = []

    def __getattr__(self, name):
        self.asked.append(name)
        return getattr(self._client, name)


def sealed_by(*sources):
    return Envelopes(Keyring(sources))


async def test_what_a_key_service_sealed_opens_in_another_process(key):
    sealed = await sealed_by(KmsKeys(key, Clock())).seal(NAME, b"{}")
    assert await sealed_by(KmsKeys(key, Clock())).open(NAME, sealed) == b"{}"


async def test_the_service_itself_refuses_the_key_of_another_object(key):
    data_key = await KmsKeys(key, Clock()).make(NAME)
    with pytest.raises(ObjectDamaged, match="KMS did not wrap its key for it"):
        await KmsKeys(key, Clock()).unwrap(data_key.wrapped, "prj_2/requests/inv_1")


async def test_a_data_key_that_was_used_lately_is_not_asked_for_again(kms, key):
    client, clock = Counting(kms), Clock()
    keys = KmsKeys(key, clock, client)
    envelopes = sealed_by(keys)
    sealed = await envelopes.seal(NAME, b"{}")
    await envelopes.open(NAME, sealed)
    assert client.asked == ["generate_data_key"]
    clock.ahead_s = kms_module.CACHED_S
    await envelopes.open(NAME, sealed)
    assert client.asked == ["generate_data_key", "decrypt"]


async def test_only_so_many_data_keys_are_kept(kms, key, monkeypatch):
    monkeypatch.setattr(kms_module, "CACHED_KEYS", 2)
    client = Counting(kms)
    keys = KmsKeys(key, Clock(), client)
    first, second, third = [await keys.make(f"prj_1/{number}") for number in range(3)]
    client.asked.clear()
    await keys.unwrap(third.wrapped, "prj_1/2")
    await keys.unwrap(second.wrapped, "prj_1/1")
    assert client.asked == []
    await keys.unwrap(first.wrapped, "prj_1/0")
    assert client.asked == ["decrypt"]


async def test_keys_move_from_a_file_to_the_service(key):
    file, service = FileKeys([b"k" * 32]), KmsKeys(key, Clock())
    before = await sealed_by(file).seal(NAME, b"{}")
    after = await sealed_by(file, service).rewrapped(NAME, before)
    assert await sealed_by(service).open(NAME, after) == b"{}"
    with pytest.raises(KeyMissing):
        await sealed_by(file).open(NAME, after)


async def test_a_service_that_is_down_or_refuses_can_be_tried_again(kms, key, monkeypatch):
    with pytest.raises(KeysUnavailable, match="refused"):
        await KmsKeys("absent", Clock()).make(NAME)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # discard: nobody listens
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(KeysUnavailable, match="cannot be asked"):
        await KmsKeys(key, Clock()).make(NAME)


def test_a_key_that_does_not_exist_stops_the_start(kms):
    with pytest.raises(StartError, match="--encryption-key kms:absent: cannot be used"):
        open_keyring(EncryptionSettings(keys=("kms:absent",)), Clock())


def test_the_settings_name_a_key_of_the_service(key):
    keyring = open_keyring(EncryptionSettings(keys=(f"kms:{key}",)), Clock())
    assert keyring.newest == f"kms:{key}"
