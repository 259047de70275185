"""Log probabilities, as the model itself gave them: before temperature, penalties, truncation."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Many

import torch

from tidegate_runtime.engine.model_runner import LogitRows
from tidegate_runtime.engine.sequence import Sequence, TokenLogprobs
from tidegate_runtime.errors import GenerationFailed
from tidegate_runtime.models.base import StepLogits

_MOST = 20
_ROWS = 64


def check_finite(logits: StepLogits, row: int) -> None:
    """Raise GenerationFailed when a row holds no numbers."""
    if not logits.finite[row]:
        raise GenerationFailed(
            "the model's logits are not finite; serve it with precision fp32, or a repaired model"
        )


def chosen_logprobs(
    chosen: Mapping[Sequence, Many[int]], rows: Many[LogitRows], logits: StepLogits
) -> dict[Sequence, list[TokenLogprobs]]:
    """The log probabilities of the chosen tokens, for the sequences that report them."""
    places: list[int] = []
    tokens: list[int] = []
    tops: list[int] = []
    counts: dict[Sequence, int] = {}
    for sequence, first, count in rows:
        top = sequence.request.sampling.logprobs
        if top is not None and sequence in chosen:
            start = first + count - 1 - sequence.drafts
            counts[sequence] = len(chosen[sequence])
            places += range(start, start + counts[sequence])
            tokens += chosen[sequence]
            tops += [top] * counts[sequence]
    if not places:
        return {}
    found = iter(token_logprobs(logits.logits[places], tokens, tops))
    return {sequence: [next(found) for _ in range(count)] for sequence, count in counts.items()}


def keep_prompt_logprobs(rows: LogitRows, logits: StepLogits) -> None:
    """Row i of a chunk from `computed_tokens` predicts the token after it; keep the prompt's."""
    sequence = rows.sequence
    prompt = sequence.request.prompt
    start, known = sequence.computed_tokens + 1, len(sequence.prompt_logprobs) + 1
    begin, end = max(start, known), min(start + rows.rows, len(prompt))
    if begin >= end:
        return
    first = rows.first + begin - start
    for row in range(first, first + end - begin):
        check_finite(logits, row)
    top = [sequence.request.sampling.logprobs or 0] * (end - begin)
    part = logits.logits[first : first + end - begin]
    sequence.prompt_logprobs += token_logprobs(part, prompt[begin:end], top)


def token_logprobs(logits: torch.Tensor, tokens: Many[int], top: Many[int]) -> list[TokenLogprobs]:
    """Log probabilities of `tokens[i]` under row i of `[rows, vocabulary]`, with `top[i]` best."""
    found: list[TokenLogprobs] = []
    # The same number for all, since the order of equals depends on it.
    most = min(logits.shape[-1], max(_MOST, *top, 0))
    for start in range(0, len(tokens), _ROWS):
        logprobs = logits[start : start + _ROWS].log_softmax(dim=-1)
        part = list(tokens[start : start + _ROWS])
        own = logprobs.gather(1, torch.tensor(part, device=logits.device).unsqueeze(1)).tolist()
        values, ids = (item.tolist() for item in logprobs.topk(most, dim=-1))
        for row, token in enumerate(part):
            count = top[start + row]
            others = tuple(zip(ids[row][:count], values[row][:count], strict=True))
            found.append(TokenLogprobs(token, own[row][0], others))
    return found
