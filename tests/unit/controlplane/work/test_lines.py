"""Bytes into numbered lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate_controlplane.work.lines import Line, groups, split


async def stream(pieces):
    for piece in pieces:
        yield piece


async def lines_of(*pieces, most=100):
    return [line async for line in split(stream(pieces), most)]


async def test_lines_are_numbered_from_one_and_blank_ones_count():
    found = await lines_of(b"a\n\nb\n")
    assert found == [Line(1, b"a"), Line(2, b""), Line(3, b"b")]
    assert [line.is_blank for line in found] == [False, True, False]


async def test_the_last_line_needs_no_ending():
    assert await lines_of(b"a\nb") == [Line(1, b"a"), Line(2, b"b")]


async def test_a_carriage_return_and_a_byte_order_mark_are_no_part_of_a_line():
    assert await lines_of(b"\xef\xbb\xbfa\r\nb\r\n") == [Line(1, b"a"), Line(2, b"b")]


async def test_a_line_that_is_too_long_is_marked_and_the_next_one_is_read():
    assert await lines_of(b"aaaa", b"aaaa", b"a\nbb\n", most=5) == [Line(1, None), Line(2, b"bb")]


async def test_a_line_of_exactly_the_limit_is_kept():
    assert await lines_of(b"aaaaa\naaaaaa\n", most=5) == [Line(1, b"aaaaa"), Line(2, None)]


async def test_a_file_that_ends_within_a_line_that_is_too_long_still_has_that_line():
    assert await lines_of(b"aaaaaaaa", b"aaa", most=5) == [Line(1, None)]


async def test_groups_leave_out_blank_lines_and_keep_the_numbers():
    grouped = groups(split(stream([b"a\n\nb\nc\n"]), 10), most=2)
    assert [group async for group in grouped] == [[Line(1, b"a"), Line(3, b"b")], [Line(4, b"c")]]


@given(
    texts=st.lists(st.binary(max_size=8).filter(lambda text: not {10, 13} & set(text))),
    cuts=st.lists(st.integers(min_value=1, max_value=7), max_size=20),
)
async def test_lines_do_not_depend_on_how_the_bytes_were_cut(texts, cuts):
    whole = b"".join(text + b"\n" for text in [b"first", *texts])
    pieces, start = [], 0
    for cut in cuts:
        pieces.append(whole[start : start + cut])
        start += cut
    found = await lines_of(*pieces, whole[start:])
    assert [line.text for line in found] == [b"first", *texts]
