from __future__ import annotations

import re
import time

from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from tidegate.protocol.api_keys import ALPHABET, new_key, new_secret, read_secret
from tidegate_controlplane.access.secret import digest, matches

ROW = "key_01m7yg8s3w9vmzqvz6b94e6hpe"
KEY = new_secret(ROW)


def test_a_key_names_its_row_and_carries_256_bits_and_a_checksum() -> None:
    assert re.fullmatch(r"tg_01m7yg8s3w9vmzqvz6b94e6hpe_[0-9A-Za-z]{49}", KEY)
    presented = read_secret(KEY)
    assert presented is not None
    assert presented.key_id == ROW


def test_no_two_keys_are_alike() -> None:
    assert len({new_secret(ROW) for _ in range(100)}) == 100


def test_a_key_made_elsewhere_names_a_row_of_its_own_that_sorts_by_its_age() -> None:
    made = [read_secret(new_key()) for _ in range(100)]
    ids = [key.key_id for key in made if key is not None]
    assert len(set(ids)) == 100
    assert all(re.fullmatch(r"key_[0-7][0-9a-hjkmnp-tv-z]{25}", found) for found in ids)
    assert abs(ULID.from_str(ids[0].removeprefix("key_")).timestamp - time.time()) < 60
    assert ids[0][:13] <= ids[-1][:13]


@given(st.integers(0, len(KEY) - 1), st.sampled_from(ALPHABET + "_-"))
def test_a_key_with_one_altered_character_is_none(place: int, character: str) -> None:
    altered = KEY[:place] + character + KEY[place + 1 :]
    assert altered == KEY or read_secret(altered) is None


@given(st.integers(0, len(KEY) - 1))
def test_a_key_that_was_cut_is_none(length: int) -> None:
    assert read_secret(KEY[:length]) is None


@given(st.text())
def test_any_text_can_be_asked(text: str) -> None:
    assert read_secret(text) is None


def test_a_digest_matches_only_its_own_key_and_pepper() -> None:
    stored = digest(KEY, b"p" * 32)
    assert matches(KEY, stored, b"p" * 32)
    assert not matches(KEY, stored, b"q" * 32)
    assert not matches(new_secret(ROW), stored, b"p" * 32)
    assert KEY not in stored
