import pytest

from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.prompt import output_limit, text_tokens


def limit(prompt: int, wanted: int | None, silent: int | None = None, cache: int = 1000) -> int:
    return output_limit(prompt, wanted, silent, context=100, cache=cache)


def test_a_wanted_limit_that_fits_is_taken() -> None:
    assert limit(60, 40) == 40


def test_a_wanted_limit_beyond_the_context_is_refused_with_the_numbers() -> None:
    with pytest.raises(RequestRefused) as refused:
        limit(60, 41)
    assert refused.value.code == "context_length_exceeded"
    for number in ("100", "101", "60", "41"):
        assert number in refused.value.message


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    with pytest.raises(RequestRefused, match="at least 1"):
        limit(100, None)


def test_a_silent_chat_gets_the_rest_of_the_context() -> None:
    assert limit(60, None) == 40


def test_a_silent_completion_gets_sixteen_tokens_or_what_is_left() -> None:
    assert limit(60, None, 16) == 16
    assert limit(90, None, 16) == 10


def test_a_silent_request_stays_within_the_cache() -> None:
    assert limit(60, None, cache=80) == 20


@pytest.mark.parametrize("token", [-1, 50])
def test_a_token_id_outside_the_vocabulary_is_refused(token: int) -> None:
    with pytest.raises(RequestRefused, match=str(token)):
        text_tokens(None, [1, token], 50, "prompt")


def test_token_ids_are_taken_as_they_are() -> None:
    assert text_tokens(None, [1, 49], 50, "prompt") == [1, 49]
