"""Keys in a file: one a line, for their owner alone."""

from __future__ import annotations

import base64
import os

import pytest

from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.encryption.key_file import key_id, read_keys
from tidegate_controlplane.encryption.open import open_keyring
from tidegate_controlplane.errors import StartError
from tidegate_controlplane.settings import EncryptionSettings


def write(path, *keys, mode=0o600):
    path.write_text("".join(base64.b64encode(key).decode() + "\n" for key in keys))
    path.chmod(mode)
    return path


def test_the_last_line_of_the_last_place_is_the_key_that_seals(tmp_path):
    keys = [os.urandom(32) for _ in range(3)]
    first, second = write(tmp_path / "1", keys[0]), write(tmp_path / "2", *keys[1:])
    settings = EncryptionSettings(keys=(str(first), str(second)))
    keyring = open_keyring(settings, SystemClock())
    assert keyring.key_ids == [key_id(key) for key in keys]
    assert keyring.newest == key_id(keys[2])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path, mode):
    path = write(tmp_path / "keys", os.urandom(32), mode=mode)
    with pytest.raises(StartError, match="chmod 600"):
        read_keys(path)


@pytest.mark.parametrize("line", ["c2hvcnQ=", "not base64!", "A" * 45])
def test_a_line_that_is_no_key_is_named(tmp_path, line):
    path = write(tmp_path / "keys", os.urandom(32))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(StartError, match="line 2 is not 32 bytes in base64"):
        read_keys(path)


def test_a_file_that_is_absent_or_empty_says_how_to_make_one(tmp_path):
    for path in (tmp_path / "absent", write(tmp_path / "empty")):
        with pytest.raises(StartError, match="tidegate encryption add-key"):
            read_keys(path)


def test_nothing_is_sealed_without_a_key_and_nothing_can_be_required_either():
    assert open_keyring(EncryptionSettings(), SystemClock()) is None
    with pytest.raises(StartError, match="--encryption-required: needs a key"):
        open_keyring(EncryptionSettings(required=True), SystemClock())


@pytest.mark.parametrize("place", ["kms:", "kms:ключ", "kms:" + "k" * 300])
def test_a_name_that_can_be_no_key_of_a_service_is_refused(place):
    with pytest.raises(StartError, match="expected kms:<key id>"):
        open_keyring(EncryptionSettings(keys=(place,)), SystemClock())
