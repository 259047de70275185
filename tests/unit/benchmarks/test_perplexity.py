import math

import pytest
from benchmarks.perplexity import WINDOW_TOKENS, perplexity, windows


def test_windows_are_whole_and_follow_each_other() -> None:
    tokens = list(range(3 * WINDOW_TOKENS + 10))
    found = windows(tokens, 3)
    assert [len(window) for window in found] == [WINDOW_TOKENS] * 3
    assert [token for window in found for token in window] == tokens[: 3 * WINDOW_TOKENS]


def test_a_text_too_short_for_the_windows_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"2 windows need 1024 tokens, the text has 1023"):
        windows(range(1023), 2)


def test_a_uniform_guess_among_n_tokens_has_perplexity_n() -> None:
    texts = [[1, 2, 3, 4], [5, 6]]
    assert perplexity(lambda text: [-math.log(50)] * (len(text) - 1), texts) == pytest.approx(50)


def test_every_predicted_token_counts_alike_whatever_its_window() -> None:
    said = {3: [math.log(1.0), math.log(1.0)], 2: [math.log(1 / 8)]}
    assert perplexity(lambda text: said[len(text)], [[1, 2, 3], [4, 5]]) == pytest.approx(2.0)


def test_a_system_that_leaves_a_token_out_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 log-probabilities for 2 tokens"):
        perplexity(lambda text: [-1.0] * len(text), [[1, 2]])
