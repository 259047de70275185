"""A body of any size, checked as it passes.

A chat and a single prompt are asked as they came, so they are as large as a replica takes. An array
of inputs or prompts may be far larger: its items are checked and counted one by one and not held;
what is beside the array is small, and is checked exactly as that of a small request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import ijson

from tidegate.protocol.openai import ENDPOINT_REQUESTS
from tidegate.protocol.replica import MAX_BODY_BYTES
from tidegate_controlplane.errors import BadRequest, TooLarge
from tidegate_controlplane.objects.base import PIECE_BYTES
from tidegate_controlplane.objects.base import pieces as regrouped
from tidegate_controlplane.objects.threads import in_thread
from tidegate_controlplane.work.item_check import ItemCheck
from tidegate_controlplane.work.request import Wanted, check, infer_endpoint

FEED_BYTES = 64 * 1024
"""Bytes that are parsed at once: limits are kept to within so many."""
MAX_FIELD_BYTES = 256 * 1024
"""Of all fields beside an array that is asked in pieces; each piece repeats them."""
MAX_ITEM_BYTES = MAX_BODY_BYTES - MAX_FIELD_BYTES - 2 * FEED_BYTES
"""Of one item, so that it fits into a request to a replica."""

ARRAYS = frozenset({"prompt", "input"})
_FIELDS = {name for shape in ENDPOINT_REQUESTS.values() for name in shape.model_fields}
_SCALARS = frozenset({"null", "boolean", "number", "string"})


@dataclass(frozen=True)
class Outline:
    """What is known of a body without holding it."""

    wanted: Wanted
    fields: dict[str, Any]
    """All of it but the array; all of it that was held when there is none."""
    array: str | None
    """The field whose items may be asked in pieces; None for a request that is asked whole."""
    items: int

    @property
    def kept(self) -> dict[str, Any] | None:
        """What a row says of a body that is asked in pieces."""
        if self.array is None:
            return None
        return {"array": self.array, "items": self.items, "fields": self.fields}


class Intake:
    """Feed it the body, then `finish`; each raises BadRequest or TooLarge as soon as it can."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._events: list[tuple[str, Any]] = ijson.sendable_list()
        self._parser = ijson.basic_parse_coro(self._events, use_float=True)
        self._nesting = 0
        self._fields: dict[str, Any] = {}
        self._field: str | None = None
        self._builder: ijson.ObjectBuilder | None = None
        self._array: ItemCheck | None = None
        self._in_array = False
        self._list: ItemCheck | None = None
        """The array while one of its lists of tokens is read."""
        self._bytes = 0
        self._array_bytes = 0
        self._quiet_bytes = 0
        """Since the last item or field ended: the length of the value that is being read."""
        self.outline: Outline | None = None
        """What the body was, once `finish` has said so."""

    def feed(self, data: bytes) -> None:
        """The next bytes of the body."""
        for start in range(0, len(data), FEED_BYTES):
            self._feed(data[start : start + FEED_BYTES])

    def finish(self) -> Outline:
        """What the body was, once all of it came."""
        try:
            self._parser.close()
        except ijson.JSONError as error:
            raise _not_json(error) from None
        array = self._array
        document = dict(self._fields)
        if array is not None:
            document[array.name] = [array.first] if array.items else []
        if not self._bytes:
            raise BadRequest("not JSON: the body is empty", code="invalid_json")
        wanted = check(document, infer_endpoint(document))
        whole = array is None or array.is_one_prompt
        name, items = (None, 1) if array is None or whole else (array.name, array.items)
        self.outline = Outline(wanted, self._fields, name, items)
        return self.outline

    def _feed(self, data: bytes) -> None:
        self._bytes += len(data)
        self._quiet_bytes += len(data)
        if self._in_array:
            self._array_bytes += len(data)
        try:
            self._parser.send(data)
        except ijson.JSONError as error:
            raise _not_json(error) from None
        for kind, value in self._events:
            if kind == "number" and self._list is not None and type(value) is int:
                self._list.tokens += 1  # almost all of such a body is this
            else:
                self._take(kind, value)
        self._events.clear()
        self._check_size()

    def _check_size(self) -> None:
        array = self._array
        if array is None or array.is_one_prompt:
            if self._bytes > MAX_BODY_BYTES:
                raise TooLarge(
                    f"larger than {MAX_BODY_BYTES} bytes, which is what a replica takes at once; "
                    "only an array of 'input' or 'prompt' items may be larger: shorten this one"
                )
            return
        if self._quiet_bytes > MAX_ITEM_BYTES:
            raise TooLarge(
                f"{array.name}: item {array.items} is larger than {MAX_ITEM_BYTES} bytes, which is "
                "what a replica takes at once; split it"
            )
        if self._bytes - self._array_bytes > MAX_FIELD_BYTES + FEED_BYTES:
            raise TooLarge(
                f"the fields beside '{array.name}' are larger than {MAX_FIELD_BYTES} bytes; "
                "shorten them"
            )

    # --- events of the parser ---

    def _take(self, kind: str, value: Any) -> None:
        if kind in ("start_map", "start_array"):
            self._nesting += 1
            if self._nesting > self._depth:
                raise BadRequest(f"nested deeper than {self._depth} levels", code="invalid_json")
        if self._in_array:
            self._in_items(kind, value)
        elif self._nesting == 1 and kind == "map_key":
            self._begin(value)
        elif self._field is None and not (kind in ("start_map", "end_map") and self._nesting == 1):
            raise BadRequest("not a JSON object", code="invalid_json")
        elif self._field is not None:
            self._in_field(kind, value)
        if kind in ("end_map", "end_array"):
            self._nesting -= 1

    def _begin(self, name: str) -> None:
        if name not in _FIELDS:
            raise BadRequest(
                f"Unsupported parameter: '{name[:64]}'. This server does not honour it; remove it.",
                code="unsupported_parameter",
                param=name[:64],
            )
        if name in self._fields or (self._array and self._array.name == name):
            raise BadRequest(f"'{name}' is given more than once", param=name)
        self._field = name
        self._builder = None

    def _in_field(self, kind: str, value: Any) -> None:
        """Within a field that is held."""
        assert self._field is not None
        if self._builder is None:
            if kind == "start_array" and self._field in ARRAYS:
                self._open_array(self._field)
                return
            self._builder = ijson.ObjectBuilder()
        self._builder.event(kind, value)
        is_scalar = self._nesting == 1 and kind in _SCALARS
        if is_scalar or (self._nesting == 2 and kind in ("end_map", "end_array")):
            self._fields[self._field] = self._builder.value
            self._field = None
            self._quiet_bytes = 0

    def _open_array(self, name: str) -> None:
        if self._array is not None:
            infer_endpoint({self._array.name: None, name: None})  # which refuses both
        self._array, self._in_array = ItemCheck(name), True

    def _in_items(self, kind: str, value: Any) -> None:
        array = self._array
        assert array is not None
        match kind, self._nesting:
            case "end_array", 2:
                self._in_array, self._field = False, None
            case "start_array", 3:
                array.open()
                self._list = array
            case "end_array", 3:
                array.close()
                self._list = None
            case _, 2:
                array.scalar(kind, value)
            case _:
                raise array.unfit(value)
        self._quiet_bytes = 0


async def checked(
    pieces: AsyncIterator[bytes], intake: Intake, accept: Callable[[Outline], object]
) -> AsyncIterator[bytes]:
    """`pieces` as they are, once checked; `accept` may refuse the whole before its last one ends.

    So whoever stores what comes out has stored nothing when anything is refused.
    """
    async for piece in regrouped(pieces, PIECE_BYTES, None):
        await in_thread(intake.feed, piece)
        yield piece
    accept(intake.finish())


def _not_json(error: ijson.JSONError) -> BadRequest:
    said = str(error.args[0] if error.args else error)
    return BadRequest(f"not JSON: {said.splitlines()[0][:200]}", code="invalid_json")
