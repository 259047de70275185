"""From rows of logits to the next tokens, all rows of a step together.

Order: penalties and bias, temperature, top-k, softmax, top-p, min-p, then one draw by inverse
transform with the number that belongs to the token (`Sequence.numbers`). The softmax is known by
chunks of the vocabulary (`ops.shares`), and only those that can matter are looked into. Nothing
that is computed over a row depends on the other rows, so a seed gives the same tokens in any
company, and after a preemption.

Sources: top-p from Holtzman et al. 2020; min-p from Nguyen et al. 2024.
"""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np
import torch

from tidegate_runtime.engine.model_runner import LogitRows
from tidegate_runtime.engine.sequence import SamplingParams
from tidegate_runtime.models.base import StepLogits
from tidegate_runtime.ops.shares import CHUNK, Floats, Places, Shares, SharesOf
from tidegate_runtime.sampling.adjust import Row, adjust, is_adjusted

_COLDEST = 1e-5
"""A lower temperature is greedy: it could only overflow."""
_SLACK = 1 - 1e-6
"""Candidates are found by shares that were rounded otherwise than those they are judged by."""

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def choose(
    logits: StepLogits, asked: Many[LogitRows], eos_tokens: frozenset[int]
) -> list[list[int]]:
    """For each of `asked` the token that every row of it gives, if the drafts before it are right.

    Row i of a sequence follows its first i drafts. The logits are left unchanged.
    """
    chosen = [logits.best[first : first + count] for _, first, count in asked]
    special = [place for place, rows in enumerate(asked) if not _is_plain(rows, eos_tokens)]
    for changed in (False, True):
        group = [i for i in special if is_adjusted(asked[i].sequence, eos_tokens) is changed]
        if not group:
            continue
        rows = [Row(asked[i].sequence, draft) for i in group for draft in range(asked[i].rows)]
        places = [asked[i].first + draft for i in group for draft in range(asked[i].rows)]
        source = logits.logits
        if changed:
            source = source.index_select(0, torch.tensor(places, device=source.device))
            places = [*range(len(rows))]
            adjust(source, rows, eos_tokens)
        tokens = iter(_select(source, places, rows, logits.shares))
        for i in group:
            chosen[i] = [next(tokens) for _ in range(asked[i].rows)]
    return chosen


def _is_plain(rows: LogitRows, eos_tokens: frozenset[int]) -> bool:
    """Whether the model's own favourite is the choice."""
    sampling = rows.sequence.request.sampling
    return sampling.temperature < _COLDEST and not is_adjusted(rows.sequence, eos_tokens)


def _select(
    logits: torch.Tensor, places: Many[int], rows: Many[Row], shares_of: SharesOf
) -> list[int]:
    """A token for each of the rows `places` of `[…, vocabulary]`."""
    chosen = np.empty(len(rows), dtype=np.int64)
    params = [row.sequence.request.sampling for row in rows]
    greedy = [i for i, item in enumerate(params) if item.temperature < _COLDEST]
    if greedy:
        wanted = torch.tensor([places[i] for i in greedy], device=logits.device)
        chosen[greedy] = _favourites(logits.index_select(0, wanted))
    if drawn := [i for i, item in enumerate(params) if item.temperature >= _COLDEST]:
        heat = [params[i].temperature for i in drawn]
        chosen[drawn] = draw(
            shares_of(logits, [places[i] for i in drawn], heat),
            [params[i] for i in drawn],
            [rows[i].sequence.numbers(rows[i].drafts + 1)[-1] for i in drawn],
        )
    tokens: list[int] = chosen.tolist()
    return tokens


def _favourites(logits: torch.Tensor) -> Places:
    """The argmax of each row. On a processor torch takes twenty times as long for it as NumPy."""
    on_cpu = logits.device.type == "cpu"
    found: Places = logits.numpy().argmax(-1) if on_cpu else logits.argmax(dim=-1).cpu().numpy()
    return found


def draw(shares: Shares, params: Many[SamplingParams], numbers: Many[float]) -> Places:
    """The token of each row at the quantile `numbers[row]` in [0, 1) of its own distribution."""
    cut = np.array([item.top_k > 0 or item.top_p < 1.0 or item.min_p > 0.0 for item in params])
    quantiles = np.array(numbers)
    chosen = np.empty(len(params), dtype=np.int64)
    if not cut.all():
        chosen[~cut] = _draw_from_all(shares, np.flatnonzero(~cut), quantiles[~cut])
    if cut.any():
        kept = [item for item, is_cut in zip(params, cut, strict=True) if is_cut]
        chosen[cut] = _draw_from_likeliest(shares, np.flatnonzero(cut), kept, quantiles[cut])
    return chosen


def _draw_from_all(shares: Shares, rows: Places, quantiles: Numbers) -> Places:
    """First the chunk of the vocabulary in which the quantile lies, then the token in it."""
    sums = np.cumsum(shares.sums[rows], axis=1, dtype=np.float64)
    goals = quantiles * sums[:, -1]
    chunk = _place(sums, goals)
    before = np.where(chunk > 0, sums[np.arange(len(rows)), chunk - 1], 0.0)
    inside = np.cumsum(shares.inside(rows, chunk), axis=1, dtype=np.float64)
    return chunk * CHUNK + _place(inside, goals - before)


def _draw_from_likeliest(
    shares: Shares, rows: Places, params: Many[SamplingParams], quantiles: Numbers
) -> Places:
    """Find the chunks that hold likely tokens, then those tokens, and cut those alone."""
    highest, totals = shares.highest[rows], shares.sums[rows].sum(axis=1, dtype=np.float64)
    floors = _floors(highest, totals, params)
    row, chunk = np.nonzero(highest >= floors[:, None])
    found = shares.inside(rows[row], chunk)
    likely = np.flatnonzero(found >= floors[row, None])
    at = likely // CHUNK
    values = (found.reshape(-1)[likely] / totals[row[at]]).astype(np.float32)
    tokens = chunk[at] * CHUNK + likely % CHUNK
    ends = np.searchsorted(row[at], np.arange(len(params)), side="right")
    chosen = np.empty(len(params), dtype=np.int64)
    for place, end in enumerate(ends):
        mine = slice(ends[place - 1] if place else 0, end)
        kept = _survivors(values[mine], params[place])
        mass = np.cumsum(values[mine][kept], dtype=np.float64)
        chosen[place] = tokens[mine][kept[_place(mass, quantiles[place] * mass[-1])]]
    return chosen


def _floors(highest: Floats, totals: Numbers, params: Many[SamplingParams]) -> Numbers:
    """A share `[rows]` that every survivor of a row reaches.

    What lies below (1 - top_p) / vocabulary weighs less than 1 - top_p together. The k likeliest
    tokens are no less likely than the best tokens of the k best chunks.
    """
    chunks = highest.shape[1]
    floors = np.array([1.0 - item.top_p for item in params]) * totals / (chunks * CHUNK)
    for count in {item.top_k for item in params if 0 < item.top_k <= chunks}:
        rows = np.array([item.top_k == count for item in params])
        least = np.partition(highest[rows], chunks - count, axis=1)[:, chunks - count]
        floors[rows] = np.maximum(floors[rows], least)
    least = np.array([item.min_p for item in params]) * highest.max(axis=1)
    found: Numbers = np.maximum(floors, least) * _SLACK
    return found


def _survivors(shares: Floats, params: SamplingParams) -> Places:
    """The places of the shares that top-k, top-p and min-p leave; of equals the first."""
    ranked = np.sort(shares)[::-1].astype(np.float64)
    if params.top_k > 0:
        ranked = ranked[: params.top_k]
    count = len(ranked)
    if params.top_p < 1.0:
        mass = np.cumsum(ranked)
        # A share of the whole, or of what top-k left of it.
        goal = params.top_p * (mass[-1] if params.top_k > 0 else 1.0)
        count = int(np.count_nonzero(mass - ranked < goal))
    if params.min_p > 0.0:
        count = min(count, int(np.count_nonzero(ranked >= params.min_p * ranked[0])))
    least = ranked[max(1, count) - 1]
    above, equal = np.flatnonzero(shares > least), np.flatnonzero(shares == least)
    return np.sort(np.concatenate([above, equal[: max(1, count) - len(above)]]))


def _place(sums: Numbers, goals: Numbers) -> Places:
    """Where the running `sums` `[..., n]` first exceed `goals` `[...]`; never where nothing is."""
    last = np.count_nonzero(sums < sums[..., -1:], axis=-1)
    passed = np.count_nonzero(sums <= np.expand_dims(goals, -1), axis=-1)
    found: Places = np.minimum(passed, last)
    return found
