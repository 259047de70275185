"""What leaves the engine: one event per token, and the tracker that turns tokens into events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidegate_runtime.engine.detokenizer import Detokenizer
from tidegate_runtime.engine.sequence import FinishReason, Sequence, TokenLogprobs
from tidegate_runtime.engine.stop_strings import StopStrings

if TYPE_CHECKING:
    from tidegate_runtime.engine.sampler import Sampled


@dataclass(frozen=True)
class TokenOutput:
    """One generated token of the choice `index`.

    `text` is what may be shown now: empty while a character is unfinished or a stop string is
    possible. `prompt_logprobs` comes with the first token when it was asked for.
    """

    index: int
    token: int
    text: str
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None


class OutputTracker:
    """Decides, token by token, what one sequence shows and when it is finished."""

    def __init__(self, tokenizer: Any, sequence: Sequence, eos_tokens: frozenset[int]) -> None:
        self._sequence = sequence
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopStrings(sequence.request.stop_strings)
        self._eos_tokens = frozenset() if sequence.request.ignore_eos else eos_tokens

    def take(self, sampled: Sampled) -> TokenOutput:
        """Append a sampled token to the sequence and say what comes of it."""
        request, sequence = self._sequence.request, self._sequence
        sequence.append(sampled.token)
        reason: FinishReason | None = None
        if sampled.token in self._eos_tokens:
            text, reason = self._rest(""), "stop"
        else:
            text, stopped = self._stops.push(self._detokenizer.push(sampled.token))
            if stopped:
                reason = "stop"
            elif sequence.output_tokens >= request.max_tokens:
                text, reason = self._rest(text), "length"
        first = sequence.output_tokens == 1
        return TokenOutput(
            index=request.index,
            token=sampled.token,
            text=text,
            logprobs=sampled.logprobs,
            prompt_logprobs=tuple(sequence.prompt_logprobs) if first else (),
            finish_reason=reason,
        )

    def _rest(self, shown: str) -> str:
        """Everything held back, now that nothing follows; a stop string in it still counts."""
        text, stopped = self._stops.push(self._detokenizer.finish())
        return shown + text + ("" if stopped else self._stops.finish())
