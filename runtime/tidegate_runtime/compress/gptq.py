"""GPTQ (Frantar et al. 2022): rounding whose errors the columns after it make up for."""

from __future__ import annotations

import torch

from tidegate_runtime.compress.grid import Grid, round_to_nearest
from tidegate_runtime.compress.statistics import InputStatistics
from tidegate_runtime.compress.surgeon import inverse_root, sweep
from tidegate_runtime.ops.quantized import GROUP, QuantizedWeight, dequantize


def gptq(
    weight: torch.Tensor,
    inputs: InputStatistics,
    bits: int,
    *,
    with_zero: bool,
    act_order: bool,
    damping: float,
) -> QuantizedWeight:
    """Quantize `[out, in]` so that its output over the calibration text changes least.

    Each group's grid is fitted as the sweep reaches it. With `act_order` columns are settled by the
    energy of their inputs, largest first; as our groups stay where they are, their grids are then
    fitted before. With `with_zero` zeros stay zeros. An output that plain rounding serves better
    keeps that: no row is worse for having been swept. A weight that is on its grid already stays.
    """
    plain = round_to_nearest(weight, bits, with_zero=with_zero)
    if torch.equal(dequantize(plain), weight):
        return plain
    energies = inputs.hessian.diagonal()
    order = energies.argsort(descending=True, stable=True) if act_order else None
    places = torch.arange(weight.shape[1]) if order is None else order
    upper = inverse_root(inputs.hessian[places][:, places], damping)
    kept = (weight != 0 if with_zero else torch.ones_like(weight, dtype=torch.bool))[:, places]
    grid = Grid.fit(weight, bits, with_zero=with_zero)
    codes = torch.empty_like(weight)

    def settle(place: int, rest: torch.Tensor) -> torch.Tensor:
        column = int(places[place])
        group = column // GROUP
        if order is None and column % GROUP == 0:
            ahead = rest[:, :GROUP] * kept[:, place : place + GROUP]
            grid.replace(group, Grid.fit(ahead, bits, with_zero=with_zero))
        codes[:, column] = grid.codes(rest[:, 0] * kept[:, place], group)
        return grid.values(codes[:, column], group)

    sweep(weight[:, places], upper, settle)
    return better(weight, inputs, grid.coded(codes), plain)


def better(
    weight: torch.Tensor, inputs: InputStatistics, *choices: QuantizedWeight
) -> QuantizedWeight:
    """Row by row, the choice whose output is nearest to that of `weight` `[out, in]`."""
    errors = torch.stack([inputs.energy(dequantize(choice) - weight) for choice in choices])
    best = errors.argmin(0)
    codes, scales = (
        torch.stack([getattr(choice, name) for choice in choices])[best, torch.arange(len(best))]
        for name in ("codes", "scales")
    )
    minimums = None
    if choices[0].minimums is not None:
        stacked = torch.stack(
            [choice.minimums for choice in choices if choice.minimums is not None]
        )
        minimums = stacked[best, torch.arange(len(best))]
    return QuantizedWeight(codes, scales, minimums, choices[0].bits)
