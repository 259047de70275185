"""From rows of logits to the next tokens, all rows of a step together.

Order: penalties and bias, temperature, top-k, softmax, top-p, min-p, then one draw by inverse
transform with the number that belongs to the token (`Sequence.numbers`). Nothing that is computed
over a row depends on the other rows, so a seed gives the same tokens in any company, and after a
preemption.

Sources: top-p from Holtzman et al. 2020; min-p from Nguyen et al. 2024.
"""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np
import torch

from tidegate_runtime.engine.model_runner import LogitRows
from tidegate_runtime.engine.sequence import SamplingParams
from tidegate_runtime.models.base import StepLogits
from tidegate_runtime.sampling.adjust import Row, adjust, is_adjusted

_CHUNK = 64
_COLDEST = 1e-5
"""A lower temperature is greedy: it could only overflow."""

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Shares = np.ndarray[tuple[int], np.dtype[np.float32]]
Places = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


def choose(
    logits: StepLogits, asked: Many[LogitRows], eos_tokens: frozenset[int]
) -> list[list[int]]:
    """For each of `asked` the token that every row of it gives, if the drafts before it are right.

    Row i of a sequence follows its first i drafts. The logits are left unchanged.
    """
    chosen = [logits.best[first : first + count] for _, first, count in asked]
    special = [place for place, rows in enumerate(asked) if not _is_plain(rows, eos_tokens)]
    if not special:
        return chosen
    rows = [Row(asked[i].sequence, draft) for i in special for draft in range(asked[i].rows)]
    wanted = [asked[i].first + draft for i in special for draft in range(asked[i].rows)]
    scratch = logits.logits.index_select(0, torch.tensor(wanted, device=logits.logits.device))
    adjust(scratch, rows, eos_tokens)
    tokens = iter(_select(scratch, rows))
    for place in special:
        chosen[place] = [next(tokens) for _ in range(asked[place].rows)]
    return chosen


def _is_plain(rows: LogitRows, eos_tokens: frozenset[int]) -> bool:
    """Whether the model's own favourite is the choice."""
    sampling = rows.sequence.request.sampling
    return sampling.temperature < _COLDEST and not is_adjusted(rows.sequence, eos_tokens)


def _select(logits: torch.Tensor, rows: Many[Row]) -> list[int]:
    """A token for every row of `[rows, vocabulary]`, which is overwritten."""
    chosen = np.empty(len(rows), dtype=np.int64)
    params = [row.sequence.request.sampling for row in rows]
    greedy = np.array([item.temperature < _COLDEST for item in params])
    if greedy.any():
        chosen[greedy] = logits[_where(greedy, logits)].argmax(dim=-1).cpu().numpy()
    if not greedy.all():
        drawn = [place for place in range(len(rows)) if not greedy[place]]
        chosen[drawn] = draw(
            logits if len(drawn) == len(rows) else logits[_where(~greedy, logits)],
            [params[place] for place in drawn],
            [rows[p].sequence.numbers(rows[p].drafts + 1)[-1] for p in drawn],
        )
    tokens: list[int] = chosen.tolist()
    return tokens


def draw(logits: torch.Tensor, params: Many[SamplingParams], numbers: Many[float]) -> Places:
    """The token of each row at the quantile `numbers[row]` in [0, 1) of its own distribution.

    `logits` `[rows, vocabulary]` are overwritten.
    """
    heat = torch.tensor([item.temperature for item in params], device=logits.device)
    shares = logits.div_(heat.unsqueeze(1)).softmax(dim=-1)
    cut = np.array([item.top_k > 0 or item.top_p < 1.0 or item.min_p > 0.0 for item in params])
    quantiles = np.array(numbers)
    chosen = np.empty(len(params), dtype=np.int64)
    if not cut.all():
        chosen[~cut] = _draw_from_all(_rows(shares, ~cut), quantiles[~cut])
    if cut.any():
        kept = [item for item, is_cut in zip(params, cut, strict=True) if is_cut]
        chosen[cut] = _draw_from_likeliest(_rows(shares, cut), kept, quantiles[cut])
    return chosen


def _draw_from_all(shares: torch.Tensor, quantiles: Numbers) -> Places:
    """First the chunk of the vocabulary in which the quantile lies, then the token in it."""
    chunks = _chunks(shares)
    sums = np.cumsum(chunks.sum(dim=-1).cpu().numpy(), axis=1, dtype=np.float64)
    goals = quantiles * sums[:, -1]
    chunk = _place(sums, goals)
    rows = np.arange(len(quantiles))
    inside = chunks[torch.from_numpy(rows), torch.from_numpy(chunk)].cpu().numpy()
    before = np.where(chunk > 0, sums[rows, chunk - 1], 0.0)
    return chunk * _CHUNK + _place(np.cumsum(inside, axis=1, dtype=np.float64), goals - before)


def _draw_from_likeliest(
    shares: torch.Tensor, params: Many[SamplingParams], quantiles: Numbers
) -> Places:
    """Find the chunks that hold likely tokens, then those tokens, and cut those alone."""
    floors = _floors(shares, params)
    chunks = _chunks(shares)
    near = np.flatnonzero((chunks.amax(dim=-1) >= floors.unsqueeze(1)).cpu().numpy())
    row, chunk = np.divmod(near, chunks.shape[1])
    picked = torch.from_numpy(near).to(shares.device)
    found = chunks.flatten(0, 1).index_select(0, picked).cpu().numpy()
    likely = np.flatnonzero(found >= floors.cpu().numpy()[row, None])
    values, at = found.reshape(-1)[likely], likely // _CHUNK
    tokens = chunk[at] * _CHUNK + likely % _CHUNK
    ends = np.searchsorted(row[at], np.arange(len(params)), side="right")
    chosen = np.empty(len(params), dtype=np.int64)
    for place, end in enumerate(ends):
        mine = slice(ends[place - 1] if place else 0, end)
        kept = _survivors(values[mine], params[place])
        mass = np.cumsum(values[mine][kept], dtype=np.float64)
        chosen[place] = tokens[mine][kept[_place(mass, quantiles[place] * mass[-1])]]
    return chosen


def _chunks(shares: torch.Tensor) -> torch.Tensor:
    """`[rows, chunks, _CHUNK]`; what is missing at the end is filled with zeros."""
    if missing := -shares.shape[1] % _CHUNK:
        shares = torch.nn.functional.pad(shares, (0, missing))
    return shares.view(len(shares), -1, _CHUNK)


def _floors(shares: torch.Tensor, params: Many[SamplingParams]) -> torch.Tensor:
    """A share `[rows]` that every survivor of a row reaches.

    What lies below (1 - top_p) / vocabulary weighs less than 1 - top_p together.
    """
    width = shares.shape[1]
    floors = torch.tensor([(1.0 - item.top_p) / width for item in params], device=shares.device)
    for count in {item.top_k for item in params if 0 < item.top_k < width}:
        rows = np.array([item.top_k == count for item in params])
        floors[_where(rows, shares)] = _rows(shares, rows).topk(count).values[:, -1]
    least = torch.tensor([item.min_p for item in params], device=shares.device)
    return torch.maximum(floors, least * shares.amax(dim=-1))


def _survivors(shares: Shares, params: SamplingParams) -> Places:
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


def _rows(tensor: torch.Tensor, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> torch.Tensor:
    return tensor if mask.all() else tensor[_where(mask, tensor)]


def _where(mask: np.ndarray[tuple[int], np.dtype[np.bool_]], tensor: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(mask).to(tensor.device)
