"""What a request wants changed in the logits before the choice: penalties, bias, no early end, and
only what its grammar allows.

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

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_FORBIDS = np.where(_BITS, np.float32(0), np.float32(-np.inf))
"""`[256, 8]`: what a byte of a mask adds to the logits of its eight tokens."""


class Row(NamedTuple):
    """One row to choose from: it follows the first `drafts` guesses of `sequence`."""

    sequence: Sequence
    drafts: int


def is_adjusted(sequence: Sequence, eos_tokens: frozenset[int]) -> bool:
    """Whether the next choice is not made from the model's own logits."""
    return bool(
        sequence.counts is not None
        or sequence.matcher is not None
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
        if row.sequence.matcher is None and _too_short(row, eos_tokens):
            bias |= dict.fromkeys(eos_tokens, -np.inf)
        places += [place] * len(bias)
        tokens += bias.keys()
        values += bias.values()
    if places:
        where = (_on(logits, np.array(places)), _on(logits, np.array(tokens)))
        logits[where] += _on(logits, np.array(values, dtype=np.float32))
    for place, row in enumerate(rows):
        if row.drafts == 0 and row.sequence.matcher is not None:
            _follow_grammar(logits, place, rows, eos_tokens)


def _follow_grammar(
    logits: torch.Tensor, first: int, rows: Many[Row], eos_tokens: frozenset[int]
) -> None:
    """Leave the rows of one sequence, from `first` on, the tokens that its grammar allows.

    An end of sequence that is not wanted yet is allowed only where nothing else is.
    """
    sequence = rows[first].sequence
    mine = [row for row in rows[first : first + 1 + sequence.drafts] if row.sequence is sequence]
    masks = np.full((len(mine), -(-logits.shape[1] // 32)), -1, dtype=np.int32)
    assert sequence.matcher is not None
    sequence.matcher.fill(masks, sequence.draft_tokens)
    for row, mask in zip(mine, masks, strict=True):
        if sequence.request.ignore_eos or _too_short(row, eos_tokens):
            _without_end(mask, eos_tokens)
    forbids = _FORBIDS.take(masks.view(np.uint8), axis=0).reshape(len(mine), -1)
    logits[first : first + len(mine)] += _on(logits, forbids[:, : logits.shape[1]])


def _without_end(mask: np.ndarray[tuple[int], np.dtype[np.int32]], eos: frozenset[int]) -> None:
    before = mask.copy()
    for token in eos:
        mask[token // 32] &= ~np.int32(np.uint32(1 << token % 32).view(np.int32))
    if not mask.any():
        mask[:] = before


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
