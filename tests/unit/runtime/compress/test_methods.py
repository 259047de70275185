"""What each method promises of one weight, on inputs with outliers as models have them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_runtime.compress.awq import clip_and_round, search_scales
from tidegate_runtime.compress.gptq import gptq
from tidegate_runtime.compress.grid import round_to_nearest
from tidegate_runtime.compress.smoothquant import smoothing_scales
from tidegate_runtime.compress.sparsegpt import sparsegpt
from tidegate_runtime.compress.sparsity import Sparsity
from tidegate_runtime.compress.statistics import InputStatistics
from tidegate_runtime.compress.wanda import wanda
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.ops.quantized import (
    QuantizedWeight,
    dequantize,
    quantize,
    quantize_activations,
)

OUT, IN, ROWS = 24, 160, 400
WHOLE = Sparsity.parse("0.5")
PATTERN = Sparsity.parse("2:4")
seeds = st.integers(min_value=0, max_value=2**31)


def weight(seed: int = 0) -> torch.Tensor:
    return torch.randn(OUT, IN, generator=torch.Generator().manual_seed(seed))


def rows(seed: int = 0) -> torch.Tensor:
    """Correlated inputs, a few of them far larger than the others."""
    generator = torch.Generator().manual_seed(seed + 1)
    mixed = torch.randn(ROWS, IN, generator=generator) @ torch.randn(IN, IN, generator=generator)
    mixed[:, ::37] *= 30
    return mixed / 10


def statistics(seed: int = 0) -> InputStatistics:
    found = InputStatistics(IN)
    for part in rows(seed).split(90):
        found.add(part)
    return found


def lost(found: QuantizedWeight | torch.Tensor, wanted: torch.Tensor, seed: int = 0) -> float:
    """The squared error of the output itself, not of its second moments."""
    return float(lost_of_each(found, wanted, seed).mean())


def lost_of_each(
    found: QuantizedWeight | torch.Tensor, wanted: torch.Tensor, seed: int = 0
) -> torch.Tensor:
    """The same by output `[out]`."""
    values = dequantize(found) if isinstance(found, QuantizedWeight) else found
    return (rows(seed) @ (values - wanted).T).square().mean(0)


def swept(given: torch.Tensor, seed: int = 0, bits: int = 4, **options: bool) -> QuantizedWeight:
    chosen = {"with_zero": False, "act_order": False, **options}
    return gptq(given, statistics(seed), bits, damping=0.01, **chosen)


def test_the_statistics_of_parts_are_those_of_the_whole() -> None:
    found, whole = statistics(), rows()
    torch.testing.assert_close(found.hessian, whole.T @ whole / ROWS, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.mean, whole.abs().mean(0))
    assert torch.equal(found.largest, whole.abs().amax(0))
    changed = weight() + 0.1
    share = lost(changed, weight()) / lost(torch.zeros_like(changed), weight())
    assert found.error(changed, weight()) == pytest.approx(share, rel=1e-3)


@settings(max_examples=12, deadline=None)
@given(seeds, st.sampled_from([4, 8]), st.booleans(), st.booleans())
def test_no_output_of_gptq_is_further_off_than_that_of_rounding(
    seed: int, bits: int, act_order: bool, with_zero: bool
) -> None:
    given = weight(seed)
    plain = round_to_nearest(given, bits, with_zero=with_zero)
    found = swept(given, seed, bits, act_order=act_order, with_zero=with_zero)
    worst = lost_of_each(plain, given, seed) * 1.001 + 1e-9
    assert bool((lost_of_each(found, given, seed) <= worst).all())


@pytest.mark.parametrize("act_order", [False, True])
def test_gptq_makes_up_for_most_of_what_rounding_loses(act_order: bool) -> None:
    given = weight()
    found = swept(given, act_order=act_order)
    assert lost(found, given) < 0.6 * lost(quantize(given, 4), given)


def test_a_weight_on_its_grid_is_left_there() -> None:
    given = dequantize(quantize(weight(), 4))
    assert torch.equal(dequantize(swept(given)), given)


@pytest.mark.parametrize("alive", [torch.arange(IN) % 5 != 0, torch.zeros(IN)])
def test_inputs_that_never_were_anything_do_not_disturb_gptq(alive: torch.Tensor) -> None:
    found = InputStatistics(IN)
    found.add(rows() * alive)
    quantized = gptq(weight(), found, 4, with_zero=False, act_order=True, damping=0.01)
    assert bool(dequantize(quantized).isfinite().all())


def test_activations_that_are_not_finite_are_refused() -> None:
    found = InputStatistics(IN)
    found.add(rows() * float("inf"))
    with pytest.raises(ModelRefused, match="may not be finite") as refused:
        gptq(weight(), found, 4, with_zero=False, act_order=False, damping=0.01)
    assert refused.value.reason == "NoHessian"


@settings(max_examples=8, deadline=None)
@given(seeds, st.sampled_from([4, 8]))
def test_the_output_of_awq_is_never_further_off_than_that_of_rounding(seed: int, bits: int) -> None:
    given, inputs = weight(seed), statistics(seed)
    scales = search_scales([given], inputs, bits, with_zero=False)
    inputs.divide(scales)
    found = dequantize(clip_and_round(given * scales, inputs, bits, with_zero=False)) / scales
    assert lost(found, given, seed) <= lost(quantize(given, bits), given, seed) * 1.0001


def test_awq_gives_finer_steps_to_what_large_inputs_meet() -> None:
    given, inputs = weight(), statistics()
    scales = search_scales([given], inputs, 4, with_zero=False)
    large, small = scales[::37].mean(), scales.median()
    assert large > 1.5 * small
    rounded = dequantize(quantize(given * scales, 4)) / scales
    assert lost(rounded, given) < 0.8 * lost(quantize(given, 4), given)


def test_awq_clips_a_group_only_where_its_output_gains() -> None:
    given = weight()
    given[:, 5] = 12.0
    inputs = InputStatistics(IN)
    inputs.add(rows() * (torch.arange(IN) != 5))  # the outlier meets nothing
    found = clip_and_round(given, inputs, 4, with_zero=False)
    assert float(dequantize(found)[:, 5].mean()) < 11.0
    plain = float(inputs.energy(dequantize(quantize(given, 4)) - given).sum())
    assert float(inputs.energy(dequantize(found) - given).sum()) < plain


def test_smoothing_moves_outliers_until_activations_round_better() -> None:
    given, inputs = weight(), rows()
    scales = smoothing_scales([given], statistics(), 0.5)
    wanted = inputs @ given.T
    plain = quantize_activations(inputs) @ given.T
    smooth = quantize_activations(inputs / scales) @ (given * scales).T
    assert (smooth - wanted).norm() < 0.8 * (plain - wanted).norm()


def test_smoothing_leaves_an_input_alone_that_never_was_anything() -> None:
    inputs = InputStatistics(IN)
    inputs.add(rows() * (torch.arange(IN) != 7))
    assert smoothing_scales([weight()], inputs, 0.5)[7] == 1.0


@settings(max_examples=10, deadline=None)
@given(seeds, st.sampled_from(["wanda", "sparsegpt"]), st.sampled_from(["2:4", "1:4", "4:8"]))
def test_a_pattern_keeps_at_most_so_many_of_each_run(seed: int, method: str, text: str) -> None:
    pattern = Sparsity.parse(text)
    kept, of = map(int, text.split(":"))
    found = pruned(method, weight(seed), pattern, seed)
    left = (found != 0).reshape(OUT, -1, of).sum(-1)
    assert int(left.max()) <= kept
    for bits in (4, 8):  # and quantizing brings nothing back
        for quantized in (
            swept(found, seed, bits, with_zero=True),
            clip_and_round(found, statistics(seed), bits, with_zero=True),
        ):
            assert bool((dequantize(quantized)[found == 0] == 0).all())


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("sparsity", [WHOLE, PATTERN])
def test_pruning_takes_the_share_that_was_asked_for_of_every_output(
    method: str, sparsity: Sparsity
) -> None:
    found = pruned(method, weight(), sparsity)
    assert (found == 0).sum(1).tolist() == [IN // 2] * OUT


def test_wanda_keeps_small_weights_that_meet_large_inputs() -> None:
    given = weight()
    magnitude = given.masked_fill(WHOLE.removed(given.abs()), 0.0)
    found = wanda(given, statistics(), WHOLE)
    assert lost(found, given) < 0.5 * lost(magnitude, given)
    assert torch.equal(found[found != 0], given[found != 0])


def test_what_sparsegpt_leaves_makes_up_for_what_it_took() -> None:
    given = weight()
    found = sparsegpt(given, statistics(), WHOLE, damping=0.01)
    assert lost(found, given) < 0.7 * lost(wanda(given, statistics(), WHOLE), given)


@pytest.mark.parametrize("text", ["0", "1", "1.5", "4:2", "0:4", "3:6", "nan", "half"])
def test_a_sparsity_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ModelRefused, match=f"--sparsity {text!r}") as refused:
        Sparsity.parse(text)
    assert refused.value.reason == "BadSparsity"


@pytest.mark.parametrize("text", ["0.5", "2:4", "1:8", "0.35"])
def test_a_sparsity_reads_as_it_was_written(text: str) -> None:
    assert str(Sparsity.parse(text)) == text


def pruned(method: str, given: torch.Tensor, sparsity: Sparsity, seed: int = 0) -> torch.Tensor:
    if method == "wanda":
        return wanda(given, statistics(seed), sparsity)
    return sparsegpt(given, statistics(seed), sparsity, damping=0.01)
