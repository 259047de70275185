import pytest

from tidegate_runtime.text.stop_strings import StopStrings


def shown(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    watcher = StopStrings(stops)
    text = ""
    for piece in pieces:
        more, stopped = watcher.push(piece)
        text += more
        if stopped:
            return text, True
    return text + watcher.finish(), False


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_stop_string_is_found_wherever_it_is_cut(cut: int) -> None:
    text = "hello END more"
    assert shown(["END"], [text[:cut], text[cut:]]) == ("hello ", True)


def test_no_part_of_a_stop_string_is_ever_shown() -> None:
    watcher = StopStrings(["<stop>"])
    assert watcher.push("text <st") == ("text ", False)
    assert watcher.push("op") == ("", False)
    assert watcher.push(">tail") == ("", True)


def test_text_that_only_looked_like_a_stop_string_is_shown_after_all() -> None:
    assert shown(["<stop>"], ["a <st", "art> b"]) == ("a <start> b", False)


def test_text_held_back_at_the_end_is_shown() -> None:
    assert shown(["<stop>"], ["a <sto"]) == ("a <sto", False)


def test_the_earliest_of_several_stop_strings_wins() -> None:
    assert shown(["world", "lo"], ["hello world"]) == ("hel", True)


def test_a_stop_string_that_repeats_its_own_beginning_is_found() -> None:
    assert shown(["aab"], ["a", "a", "a", "b"]) == ("a", True)


def test_without_stop_strings_nothing_is_held() -> None:
    assert StopStrings([]).push("abc") == ("abc", False)
