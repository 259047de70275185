"""What the calibration text puts into a linear layer, as far as the methods need it."""

from __future__ import annotations

import torch


class InputStatistics:
    """Sums over every row that went into linears with one input.

    `hessian` is the mean of x xᵀ `[in, in]`: with it the squared error of a changed weight's output
    is `trace(d H dᵀ)`, so no method has to see the text twice. `mean` and `largest` are of each
    input's magnitude `[in]`. Float32.
    """

    def __init__(self, inputs: int) -> None:
        self.hessian = torch.zeros(inputs, inputs)
        self.mean = torch.zeros(inputs)
        self.largest = torch.zeros(inputs)
        self._rows = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Take `[…, in]` in."""
        rows = inputs.reshape(-1, inputs.shape[-1]).float()
        before = self._rows / (self._rows + len(rows))
        self._rows += len(rows)
        self.hessian.mul_(before).addmm_(rows.T, rows, alpha=1 / self._rows)
        self.mean.mul_(before).add_(rows.abs().sum(0) / self._rows)
        self.largest = torch.maximum(self.largest, rows.abs().amax(0))

    def divide(self, scales: torch.Tensor) -> None:
        """As if every input had been divided by its scale `[in]`."""
        self.hessian /= scales * scales.unsqueeze(1)
        self.mean /= scales
        self.largest /= scales

    def energy(self, weight: torch.Tensor) -> torch.Tensor:
        """The mean squared output of each row of `[out, in]`: `[out]`."""
        return ((weight @ self.hessian) * weight).sum(1)

    def error(self, weight: torch.Tensor, wanted: torch.Tensor) -> float:
        """The share of the wanted output's energy that is wrong."""
        whole = float(self.energy(wanted).sum())
        return float(self.energy(weight - wanted).sum()) / whole if whole > 0 else 0.0
