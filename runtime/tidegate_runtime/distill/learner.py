"""The heads as they are trained: in float32, by torch. `speculation.guess` says what they compute.

Both kinds begin as the model's own norm and head: what they add is zero at first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import linear, rms_norm, silu

from tidegate_runtime.speculation.heads import HeadWeights, Method

_SPREAD = 0.02


@dataclass(frozen=True)
class OwnExit:
    """How a model itself turns its last hidden state into logits: `norm` `[hidden]`, its `epsilon`,
    and `head` `[vocabulary, hidden]`; and its `embedding`, of the same shape. All float32.
    """

    norm: torch.Tensor
    epsilon: float
    head: torch.Tensor
    embedding: torch.Tensor


class Learner(torch.nn.Module):
    """What both kinds have: the norm, the head over the shortlist `tokens`, and a bias, which is
    that of the linear `biased`.
    """

    biased: str

    def __init__(self, own: OwnExit, tokens: torch.Tensor) -> None:
        super().__init__()
        self._epsilon = own.epsilon
        self._tokens = tokens
        self.norm = torch.nn.Parameter(own.norm.clone())
        self.head = torch.nn.Parameter(own.head[tokens.long()].clone())

    def forward(self, hidden: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """`[rows, hidden]` and the tokens said, `[rows, levels]`: logits
        `[rows, levels, shortlist]`.
        """
        normal = rms_norm(hidden.float(), self.norm.shape, self.norm, self._epsilon)
        return self._states(normal, said) @ self.head.T

    def learnt(self) -> HeadWeights:
        """What there is to save."""
        found = {name: value.detach() for name, value in self.named_parameters()}
        norm, bias = found.pop("norm"), found.pop("bias")
        return HeadWeights(norm, self._tokens, linears=found, biases={self.biased: bias})

    def _states(self, normal: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class MedusaLearner(Learner):
    """`medusa`, and `early_exit` with one level."""

    biased = "block"

    def __init__(self, own: OwnExit, tokens: torch.Tensor, levels: int) -> None:
        super().__init__(own, tokens)
        hidden = len(own.norm)
        self._levels = levels
        self.block = torch.nn.Parameter(torch.zeros(levels * hidden, hidden))
        self.bias = torch.nn.Parameter(torch.zeros(levels * hidden))

    def _states(self, normal: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        del said
        steps = silu(linear(normal, self.block, self.bias))
        return steps.view(len(normal), self._levels, -1) + normal.unsqueeze(1)


class HydraLearner(Learner):
    """`hydra`: taught with what was really said, not with its own guesses."""

    biased = "join"

    def __init__(self, own: OwnExit, tokens: torch.Tensor, seed: int) -> None:
        super().__init__(own, tokens)
        hidden = len(own.norm)
        chance = torch.Generator().manual_seed(seed)
        spread = torch.randn(2 * hidden, 2 * hidden, generator=chance) * _SPREAD
        self._embedding = own.embedding
        self.join = torch.nn.Parameter(spread)
        self.bias = torch.nn.Parameter(torch.zeros(2 * hidden))
        self.mix = torch.nn.Parameter(torch.zeros(hidden, 2 * hidden))

    def _states(self, normal: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        size, state, states = normal.shape[-1:], normal, []
        for level in range(said.shape[1]):
            token = self._embedding[said[:, level].long()]
            both = [rms_norm(part, size, eps=self._epsilon) for part in (state, token)]
            joined = silu(linear(torch.cat(both, dim=-1), self.join, self.bias))
            state = state + linear(joined, self.mix)
            states.append(state)
        return torch.stack(states, dim=1)


def new_learner(
    method: Method, own: OwnExit, tokens: torch.Tensor, levels: int, seed: int
) -> Learner:
    """Heads that have learnt nothing yet, over a shortlist `tokens`."""
    if method == "hydra":
        return HydraLearner(own, tokens, seed)
    return MedusaLearner(own, tokens, levels)
