"""From rows of logits to tokens: `adjust` the logits, then choose in `sampler`; and `logprobs`."""
