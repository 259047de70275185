"""What a request wants changed in the logits before the choice: penalties, bias, no early end.

All rows of a step are changed together, by one gather and one scatter over the few tokens that
each of them names. Sources: presence and frequency as in the OpenAI API reference; repetition from
Keskar et al. 2019 (CTRL).
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import NamedTuple

import numpy as np
import torch

from tidegate_runtime.engine.sequence import Sequence


class Row(NamedTuple):
    """One row to choose from: it follows the first `drafts` guesses of `sequence`."""

    sequence: Sequence
    drafts: int


def is_adjusted(sequence: Sequence, eos_tokens: frozenset[int]) -> bool:
    """Whether the next choice is not made from the model's own logits."""
    return bool(
        sequence.counts is not None
        or sequence.request.sampling.logit_bias
        or _too_short(Row(sequence, 0), eos_tokens)
    )


def adjust(logits: torch.Tensor, rows: Many[Row], eos_tokens: frozenset[int]) -> None:
    """Change `logits` `[rows, vocabulary]` in place. An infinite bias forbids a token."""
    _penalize(logits, rows)
    places: list[int] = []
    tokens: list[int] = []
    values: list[float] = []
    for place, row in enumerate(rows):
        bias = dict(row.sequence.request.sampling.logit_bias)
        if _too_short(row, eos_tokens):
            bias |= dict.fromkeys(eos_tokens, -np.inf)
        places += [place] * len(bias)
        tokens += bias.keys()
        values += bias.values()
    if places:
        where = (_on(logits, np.array(places)), _on(logits, np.array(tokens)))
        logits[where] += _on(logits, np.array(values, dtype=np.float32))


def _too_short(row: Row, eos_tokens: frozenset[int]) -> bool:
    request = row.sequence.request
    if request.ignore_eos or not eos_tokens:
        return False
    return row.sequence.output_tokens + row.drafts < request.min_tokens


def _penalize(logits: torch.Tensor, rows: Many[Row]) -> None:
    """Divide, then subtract, by what each row's sequence has seen and generated."""
    seen, counts, settings, places = [], [], [], []
    for place, (sequence, drafts) in enumerate(rows):
        if sequence.counts is None:
            continue
        ids, often = sequence.counts.with_drafts(sequence.draft_tokens[:drafts])
        params = sequence.request.sampling
        seen.append(ids)
        counts.append(often)
        places.append(np.full(len(ids), place))
        settings.append(
            (params.repetition_penalty, params.presence_penalty, params.frequency_penalty)
        )
    if not seen:
        return
    lengths = [len(ids) for ids in seen]
    repetition, presence, frequency = np.repeat(
        np.array(settings, dtype=np.float32).T, lengths, axis=1
    )
    often = np.concatenate(counts)
    where = (_on(logits, np.concatenate(places)), _on(logits, np.concatenate(seen)))
    values, divisor = logits[where], _on(logits, repetition)
    values = torch.where(values > 0, values / divisor, values * divisor)
    logits[where] = values - _on(logits, presence * (often > 0) + frequency * often)


def _on(
    logits: torch.Tensor, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> torch.Tensor:
    return torch.from_numpy(values).to(logits.device)
