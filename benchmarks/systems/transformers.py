"""transformers' own `generate`, over weights in bf16."""

from __future__ import annotations

import torch
import transformers
from benchmarks.driver import Options, run


class Transformers:
    """One static batch at a time; all prompts of a batch have one length."""

    def __init__(self, options: Options) -> None:
        torch.set_num_threads(options.threads)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            options.model, dtype=torch.bfloat16
        )
        self._model.generation_config.eos_token_id = None
        self._model.generation_config.pad_token_id = 0

    @torch.inference_mode()
    def generate(self, prompts: list[list[int]], max_tokens: int) -> list[int]:
        tokens = torch.tensor(prompts)
        made = self._model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=max_tokens,
            do_sample=False,
        )
        return [made.shape[1] - tokens.shape[1]] * len(prompts)

    @torch.inference_mode()
    def logprobs(self, window: list[int]) -> list[float]:
        tokens = torch.tensor([window])
        logits = self._model(tokens).logits[0, :-1].double()
        chosen = logits.log_softmax(-1).gather(1, tokens[0, 1:, None])
        found: list[float] = chosen[:, 0].tolist()
        return found


if __name__ == "__main__":
    run(Transformers)
