"""What leaves the engine: one event per token, and the tracker that turns tokens into events."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

from tidegate_runtime.engine.sequence import FinishReason, Sequence, TokenLogprobs
from tidegate_runtime.text.detokenizer import Detokenizer
from tidegate_runtime.text.stop_strings import StopStrings


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """One generated token of the choice `index`; None when only a prompt was scored.

    `text` is what may be shown now: empty while a character is unfinished or a stop string is
    possible. `prompt_logprobs` comes with the first token when it was asked for.
    """

    index: int
    token: int | None
    text: str
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None


class OutputTracker:
    """Decides, token by token, what one sequence shows and when it is finished."""

    def __init__(
        self, detokenizer: Detokenizer, sequence: Sequence, eos_tokens: frozenset[int]
    ) -> None:
        self._sequence = sequence
        self._detokenizer = detokenizer
        self._stops = StopStrings(sequence.request.stop_strings)
        self._eos_tokens = frozenset() if sequence.request.ignore_eos else eos_tokens

    def take(self, tokens: Many[int], logprobs: Many[TokenLogprobs]) -> list[TokenOutput]:
        """Append tokens to the sequence, up to its end, and say what comes of each.

        `logprobs` has one entry for each token, or none at all.
        """
        outputs = []
        for place, token in enumerate(tokens):
            outputs.append(self._take(token, logprobs[place] if logprobs else None))
            if outputs[-1].finish_reason is not None:
                break
        return outputs

    def _take(self, token: int, logprobs: TokenLogprobs | None) -> TokenOutput:
        sequence = self._sequence
        sequence.append(token)
        reason: FinishReason | None = None
        if token in self._eos_tokens:
            text, reason = self._rest(""), "stop"
        else:
            text, stopped = self._stops.push(self._detokenizer.push(token))
            if stopped:
                reason = "stop"
            elif sequence.matcher is not None and sequence.matcher.is_done:
                text, reason = self._rest(text), "stop"
            elif not sequence.room:
                text, reason = self._rest(text), "length"
        return self._output(token, text, logprobs, reason)

    def end_of_prompt(self) -> TokenOutput:
        """The only event of a sequence that generates nothing."""
        return self._output(None, "", None, "length")

    def _output(
        self,
        token: int | None,
        text: str,
        logprobs: TokenLogprobs | None,
        reason: FinishReason | None,
    ) -> TokenOutput:
        sequence = self._sequence
        prompt = tuple(sequence.prompt_logprobs) if sequence.output_tokens <= 1 else ()
        return TokenOutput(sequence.request.index, token, text, logprobs, prompt, reason)

    def _rest(self, shown: str) -> str:
        """Everything held back, now that nothing follows; a stop string in it still counts."""
        text, stopped = self._stops.push(self._detokenizer.finish())
        return shown + text + ("" if stopped else self._stops.finish())
