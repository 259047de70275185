"""From a request's sampling fields to the engine's parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tidegate.protocol.openai import SamplingFields
from tidegate_runtime.engine.sequence import SamplingParams
from tidegate_runtime.errors import RequestRefused

_TOKEN_ID = re.compile(r"^[0-9]{1,9}\Z")


def sampling_params(
    fields: SamplingFields,
    defaults: Mapping[str, float],
    *,
    logprobs: int | None,
    vocabulary_size: int,
) -> SamplingParams:
    """The request's word first, then the model's generation_config.json, then OpenAI's default.

    Raises RequestRefused for a biased token that is not in the vocabulary.
    """

    def chosen(value: float | None, name: str, otherwise: float) -> float:
        return value if value is not None else defaults.get(name, otherwise)

    return SamplingParams(
        temperature=chosen(fields.temperature, "temperature", 1.0),
        top_p=chosen(fields.top_p, "top_p", 1.0),
        top_k=int(chosen(fields.top_k, "top_k", 0)),
        min_p=chosen(fields.min_p, "min_p", 0.0),
        presence_penalty=fields.presence_penalty or 0.0,
        frequency_penalty=fields.frequency_penalty or 0.0,
        repetition_penalty=chosen(fields.repetition_penalty, "repetition_penalty", 1.0),
        logit_bias=_bias(fields.logit_bias or {}, vocabulary_size),
        seed=fields.seed,
        logprobs=logprobs,
    )


def _bias(given: Mapping[str, float], vocabulary_size: int) -> dict[int, float]:
    bias = {}
    for text, value in given.items():
        if not (_TOKEN_ID.match(text) and int(text) < vocabulary_size):
            raise RequestRefused(
                f"logit_bias: {text[:40]!r} is not a token id in 0..{vocabulary_size - 1}.",
                param="logit_bias",
                code="invalid_token_id",
            )
        bias[int(text)] = value
    return bias
