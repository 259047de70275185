"""Object keys are relative paths of plain names."""

from __future__ import annotations

import pytest

from tidegate_controlplane.errors import StartError
from tidegate_controlplane.objects.base import ObjectTooLarge, check_key, pieces
from tidegate_controlplane.objects.directory import DirectoryStore
from tidegate_controlplane.objects.open import open_objects
from tidegate_controlplane.settings import Settings


@pytest.mark.parametrize("key", ["results/inv_01/2", "files/file_01", "a", "a/b.jsonl", "A-1/_x"])
def test_a_plain_relative_path_is_a_key(key):
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".unfinished/x", "a b", "a\n", "a" * 513],
)
def test_a_key_that_could_leave_the_store_is_refused(key):
    with pytest.raises(ValueError, match="not an object key"):
        check_key(key)


async def test_pieces_have_the_size_asked_for_whatever_came_in():
    cut = [piece async for piece in pieces([b"abc", b"", b"defgh", b"i"], 4, None)]
    assert cut == [b"abcd", b"efgh", b"i"]


async def test_a_limit_that_is_met_exactly_is_kept_and_one_byte_more_is_too_large():
    assert [piece async for piece in pieces([b"ab", b"cd"], 8, 4)] == [b"abcd"]
    with pytest.raises(ObjectTooLarge, match="more than 4 bytes"):
        [piece async for piece in pieces([b"ab", b"cde"], 8, 4)]


def test_objects_are_a_directory_under_the_data_directory_unless_settings_say_otherwise(tmp_path):
    assert isinstance(open_objects(Settings(data_dir=tmp_path)), DirectoryStore)
    assert (tmp_path / "objects").is_dir()


@pytest.mark.parametrize("place", ["gs://bucket", "s3://", "a/directory"])
def test_a_place_that_is_neither_a_bucket_nor_a_directory_is_refused_at_start(tmp_path, place):
    with pytest.raises(StartError, match=r"expected s3://bucket/prefix"):
        open_objects(Settings(data_dir=tmp_path, objects=place))
