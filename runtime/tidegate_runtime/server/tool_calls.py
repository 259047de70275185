"""Words and calls in the shape of OpenAI's messages, whole or in pieces."""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.protocol.openai import (
    AssistantMessage,
    ChatDelta,
    FunctionCall,
    FunctionCallDelta,
    ToolCall,
    ToolCallDelta,
)
from tidegate_runtime.tools.events import Argued, Began, Broke, Ended, Event, Said
from tidegate_runtime.tools.reading import CallReading


class MessageDeltas:
    """One choice's message in pieces. `has_called` once a call of it is whole.

    A call that breaks off after it was begun stays as it was sent, and the rest of it is content:
    what was sent cannot be taken back.
    """

    def __init__(self, reading: CallReading) -> None:
        self.has_called = False
        self._syntax = reading.syntax
        self._parser = reading.parser()
        self._calls = 0

    def push(self, text: str, *, is_last: bool) -> list[ChatDelta]:
        """Take the next text; return what may be sent of it."""
        events = self._parser.push(text)
        if is_last:
            events += self._parser.finish()
        return [delta for event in events if (delta := self._delta(event)) is not None]

    def _delta(self, event: Event) -> ChatDelta | None:
        match event:
            case Said(text) | Broke(rest=text):
                return ChatDelta(content=text) if text else None
            case Began(name):
                self._calls += 1
                return self._call(
                    id=self._syntax.new_id(),
                    type="function",
                    function=FunctionCallDelta(name=name, arguments=""),
                )
            case Argued(text):
                return self._call(function=FunctionCallDelta(arguments=text))
            case Ended():
                self.has_called = True
        return None

    def _call(self, **fields: object) -> ChatDelta:
        piece = ToolCallDelta.model_validate({"index": self._calls - 1, **fields})
        return ChatDelta(tool_calls=[piece])


def message_of(text: str, reading: CallReading | None) -> AssistantMessage:
    """The whole message. What is no whole call is content, as the model wrote it."""
    if reading is None:
        return AssistantMessage(content=text)
    parser = reading.parser()
    content, calls = _parts([*parser.push(text), *parser.finish()], reading)
    return AssistantMessage(content=content or None, tool_calls=calls or None)


def _parts(events: Iterable[Event], reading: CallReading) -> tuple[str, list[ToolCall]]:
    words: list[str] = []
    calls: list[ToolCall] = []
    name, arguments = "", ""
    for event in events:
        match event:
            case Said(text) | Broke(text=text):
                words.append(text)
            case Began(begun):
                name, arguments = begun, ""
            case Argued(piece):
                arguments += piece
            case Ended():
                function = FunctionCall(name=name, arguments=arguments)
                calls.append(ToolCall(id=reading.syntax.new_id(), function=function))
    return "".join(words), calls
