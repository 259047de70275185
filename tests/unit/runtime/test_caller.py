import pytest

from tidegate.protocol.replica import Priority
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.caller import Caller


def test_the_gateway_s_headers_say_who_asks_and_how_urgently() -> None:
    headers = {"X-Tidegate-Project": "prj_1", "X-Tidegate-Priority": "2"}
    assert Caller.of(headers, 7.0) == Caller(7.0, "prj_1", Priority.BATCH)


def test_without_headers_it_is_nobody_s_and_sync() -> None:
    assert Caller.of({}, 7.0) == Caller(7.0, "", Priority.SYNC)


@pytest.mark.parametrize("value", ["3", "-1", "", "high"])
def test_an_unknown_priority_is_refused(value: str) -> None:
    with pytest.raises(RequestRefused, match="no priority"):
        Caller.of({"X-Tidegate-Priority": value}, 7.0)
