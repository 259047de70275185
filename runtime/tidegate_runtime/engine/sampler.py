"""From a row of logits to the next token.

Order: bias and penalties, temperature, top-k, softmax, top-p, min-p, then one draw by inverse
transform. The draw uses one number of the sequence's own generator, so a seed gives the same
tokens whatever else is in the batch, and after a preemption.

Sources: top-p from Holtzman et al. 2020; min-p from Nguyen et al. 2024; penalties as in the OpenAI
API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import torch

from tidegate_runtime.engine.sequence import SamplingParams, Sequence, TokenLogprobs
from tidegate_runtime.errors import GenerationFailed

_NUCLEUS_GUESS = 1024
_LOGPROB_ROWS = 64


@dataclass(frozen=True)
class Sampled:
    """The chosen token, and its log probabilities when they were asked for."""

    token: int
    logprobs: TokenLogprobs | None = None


def sample(
    logits: torch.Tensor, params: SamplingParams, counts: Mapping[int, int], random: Random
) -> Sampled:
    """Choose one token from `logits` `[vocabulary]` (float32, left unchanged).

    `counts` says how often each token was generated already. Raises GenerationFailed when the
    model gave no usable number.
    """
    # One comparison finds a NaN, and a row that is infinite throughout.
    if not torch.isfinite(logits.max()):
        raise GenerationFailed(
            "the model's logits are not finite; serve it with precision fp32, or a repaired model"
        )
    adjusted = _adjust(logits, params, counts) if params.adjusts_logits else logits
    if params.temperature == 0.0:
        token = int(adjusted.argmax())
    else:
        token = _draw(adjusted / params.temperature, params, random.random())
    if params.logprobs is None:
        return Sampled(token)
    return Sampled(token, token_logprobs(logits.unsqueeze(0), [token], params.logprobs)[0])


def sample_sequence(logits: torch.Tensor, sequence: Sequence) -> Sampled:
    """Choose a sequence's next token from `logits` `[vocabulary]`; see `sample`."""
    return sample(logits, sequence.request.sampling, sequence.output_counts, sequence.random)


def token_logprobs(logits: torch.Tensor, tokens: list[int], top: int) -> list[TokenLogprobs]:
    """Log probabilities of `tokens[i]` under row i of `[rows, vocabulary]`, with `top` others."""
    found: list[TokenLogprobs] = []
    for start in range(0, len(tokens), _LOGPROB_ROWS):
        logprobs = logits[start : start + _LOGPROB_ROWS].log_softmax(dim=-1)
        values, ids = logprobs.topk(min(top, logprobs.shape[-1]), dim=-1)
        for row, token in enumerate(tokens[start : start + _LOGPROB_ROWS]):
            others = tuple(zip(ids[row].tolist(), values[row].tolist(), strict=True))
            found.append(TokenLogprobs(token, float(logprobs[row, token]), others))
    return found


def _adjust(
    logits: torch.Tensor, params: SamplingParams, counts: Mapping[int, int]
) -> torch.Tensor:
    adjusted = logits.clone()
    if params.logit_bias:
        tokens = torch.tensor(list(params.logit_bias))
        adjusted[tokens] += torch.tensor(list(params.logit_bias.values()))
    if counts and (params.presence_penalty or params.frequency_penalty):
        tokens = torch.tensor(list(counts))
        often = torch.tensor(list(counts.values()), dtype=torch.float32)
        adjusted[tokens] -= params.presence_penalty + params.frequency_penalty * often
    return adjusted


def _draw(logits: torch.Tensor, params: SamplingParams, number: float) -> int:
    """The token at quantile `number` in [0, 1) of the truncated distribution."""
    probabilities = logits.softmax(dim=-1)
    kept, tokens = _truncate(probabilities, params)
    cumulative = kept.double().cumsum(0)
    place = int(torch.searchsorted(cumulative, number * cumulative[-1], right=True))
    place = min(place, len(kept) - 1)
    return place if tokens is None else int(tokens[place])


def _truncate(
    probabilities: torch.Tensor, params: SamplingParams
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The probabilities that survive, with their tokens, best first; None for all, unsorted."""
    if params.top_k == 0 and params.top_p >= 1.0:
        if params.min_p == 0.0:
            return probabilities, None
        floor = params.min_p * probabilities.max()
        return probabilities.masked_fill(probabilities < floor, 0.0), None
    kept, tokens = _likeliest(probabilities, params)
    if params.top_p < 1.0:
        before = kept.cumsum(0) - kept
        count = int((before < params.top_p * _mass(kept, params)).sum())
        kept, tokens = kept[: max(1, count)], tokens[: max(1, count)]
    if params.min_p > 0.0:
        count = int((kept >= params.min_p * kept[0]).sum())
        kept, tokens = kept[: max(1, count)], tokens[: max(1, count)]
    return kept, tokens


def _likeliest(
    probabilities: torch.Tensor, params: SamplingParams
) -> tuple[torch.Tensor, torch.Tensor]:
    """Enough of the likeliest tokens, sorted. A full sort is kept for when a guess is too short."""
    size = probabilities.shape[0]
    if params.top_k > 0:
        return probabilities.topk(min(params.top_k, size))
    kept, tokens = probabilities.topk(min(_NUCLEUS_GUESS, size))
    if float(kept.sum()) >= params.top_p:
        return kept, tokens
    return probabilities.sort(descending=True)


def _mass(kept: torch.Tensor, params: SamplingParams) -> float:
    """What top-p is a share of: the whole, or what top-k left of it."""
    return float(kept.sum()) if params.top_k > 0 else 1.0
