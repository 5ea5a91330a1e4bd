"""Quantisers of weights and inputs against their definitions, PyTorch's own, and a search over all levels."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from fedsparse.quantisation.binary import Binary
from fedsparse.quantisation.inputs import InputRange
from fedsparse.quantisation.lsq import LearnedStep
from fedsparse.quantisation.symmetric import Symmetric
from fedsparse.quantisation.ternary import Ternary
from fedsparse.quantisation.weights import WeightQuantiser

SHAPES = [(5, 3, 3, 3), (7, 11)]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradient(quantiser: nn.Module, values: Tensor) -> Tensor:
    """Of sum(2^(i mod 7) y_i): each output has another weight."""
    leaf = values.clone().requires_grad_()
    (quantiser(leaf).flatten() * weights_of(values)).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def weights_of(values: Tensor) -> Tensor:
    return 2.0 ** (torch.arange(values.numel()) % 7)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_symmetric_quantiser_gives_what_torch_gives_for_the_same_steps(bits: int, shape: tuple[int, ...]) -> None:
    weight, highest = drawn(*shape), 2 ** (bits - 1) - 1
    steps = weight.abs().flatten(1).amax(1) / highest
    zeros = torch.zeros(len(steps), dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(weight, steps, zeros, 0, -highest, highest)
    torch.testing.assert_close(Symmetric(bits)(weight), theirs)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_symmetric_quantiser_gives_the_nearest_of_all_levels(bits: int) -> None:
    weight, highest = drawn(4, 9), 2 ** (bits - 1) - 1
    for row, quantised in zip(weight, Symmetric(bits)(weight), strict=True):
        grid = row.abs().max() * torch.arange(-highest, highest + 1) / highest
        nearest = grid[(row[:, None] - grid).abs().argmin(1)]
        torch.testing.assert_close(quantised, nearest)


def test_a_sign_times_the_mean_magnitude_is_the_closest_binary_row() -> None:
    row = drawn(1, 6)
    choices = (torch.tensor(signs) for signs in itertools.product((-1.0, 1.0), repeat=6))
    errors = [(row - row @ s / 6 * s).square().sum() for s in choices]  # row @ s / 6 is the best step of these signs
    torch.testing.assert_close((row - Binary(1)(row)).square().sum(), min(errors))


def test_a_ternary_row_is_nearly_the_closest_of_all() -> None:
    excess = []
    for seed in range(20):
        row = drawn(1, 7, seed=seed)
        choices = (torch.tensor(signs) for signs in itertools.product((-1.0, 0.0, 1.0), repeat=7))
        errors = [(row - row @ s / s.square().sum() * s).square().sum() for s in choices if s.any()]
        excess.append((row - Ternary(2)(row)).square().sum() / row.square().sum() - min(errors) / row.square().sum())
    assert min(excess) > -1e-6
    assert sum(excess) / len(excess) < 0.05


@pytest.mark.parametrize("quantiser", [Symmetric(8), Symmetric(4), Ternary(2), Binary(1)])
def test_quantised_weights_are_quantised_to_themselves(quantiser: WeightQuantiser) -> None:
    once = quantiser(drawn(6, 50))
    torch.testing.assert_close(quantiser(once), once, rtol=1e-6, atol=0)


@pytest.mark.parametrize("quantiser", [Symmetric(8), Symmetric(4), Ternary(2), Binary(1)])
def test_weights_that_do_not_exist_stay_zero_and_change_no_step(quantiser: WeightQuantiser) -> None:
    full = drawn(3, 10)
    sparse = torch.cat([full, torch.zeros(3, 40)], 1)
    torch.testing.assert_close(quantiser(sparse), torch.cat([quantiser(full), torch.zeros(3, 40)], 1))
    assert not quantiser(torch.zeros(3, 10)).any()


@pytest.mark.parametrize("quantiser", [Symmetric(8), Symmetric(4), Ternary(2)])
def test_the_gradient_passes_straight_through(quantiser: WeightQuantiser) -> None:
    weight = drawn(4, 6)
    assert torch.equal(gradient(quantiser, weight).flatten(), weights_of(weight))


def test_the_gradient_of_a_sign_stops_beyond_one() -> None:
    weight = drawn(4, 6)
    expected = weights_of(weight) * (weight.flatten().abs() <= 1)
    assert 0 < expected.count_nonzero() < weight.numel()
    assert torch.equal(gradient(Binary(1), weight).flatten(), expected)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_the_gradients_of_a_learned_step_are_those_of_the_paper(bits: int) -> None:
    """Esser et al. 2020, equations 3 and 5, and the scale 1 / sqrt(N Q_P) of section 2.2."""
    weight = 3 * drawn(5, 8)
    quantiser = LearnedStep(bits, drawn(5, 8))
    ours = gradient(quantiser, weight)
    negative, positive, step = 2 ** (bits - 1), 2 ** (bits - 1) - 1, float(quantiser.step.detach())
    ratio = weight.flatten() / step
    inside = (ratio > -negative) & (ratio < positive)
    by_step = torch.where(inside, ratio.round() - ratio, ratio.clamp(-negative, positive))
    scale = (weight.numel() * positive) ** -0.5
    assert quantiser.step.grad is not None
    assert float(quantiser.step.grad) == pytest.approx(scale * float((weights_of(weight) * by_step).sum()), rel=1e-4)
    assert torch.equal(ours.flatten(), weights_of(weight) * inside)
    assert step == pytest.approx(2 * float(drawn(5, 8).abs().mean()) / positive**0.5)


@pytest.mark.parametrize("bits", [4, 2])
def test_all_spread_weights_have_a_gradient_with_a_learned_step(bits: int) -> None:
    quantiser = LearnedStep(bits, drawn(5, 80))
    spread = quantiser.spread(quantiser.levels(3 * drawn(5, 80)), torch.rand(5, 80) - 0.5).detach()
    assert gradient(quantiser, 3 * drawn(5, 80)).count_nonzero() < 400
    assert gradient(quantiser, spread).count_nonzero() == 400


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_learned_step_quantises_as_torch_does(bits: int) -> None:
    weight, quantiser = drawn(5, 8), LearnedStep(bits, drawn(5, 8))
    step, low, high = float(quantiser.step.detach()), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    theirs = torch.fake_quantize_per_tensor_affine(weight, step, 0, low, high)
    torch.testing.assert_close(quantiser(weight).detach(), theirs)
    whole, steps = quantiser.levels(weight)
    torch.testing.assert_close((whole * steps).detach(), theirs)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_inputs_are_quantised_as_torch_does_within_the_range_seen(bits: int) -> None:
    inputs, layer = drawn(20, 6), InputRange(bits)
    ours = layer(inputs)  # the first batch sets the range
    low, high = float(inputs.min()), float(inputs.max())
    step = (high - low) / (2**bits - 1)
    theirs = torch.fake_quantize_per_tensor_affine(inputs, step, round(-low / step), 0, 2**bits - 1)
    torch.testing.assert_close(ours, theirs)
    assert (layer(torch.zeros(1)) == 0).all()
    beyond = torch.tensor([0.0, 2 * high])
    assert torch.equal(gradient(layer.eval(), beyond), torch.tensor([1.0, 0.0]))


def test_the_range_of_inputs_is_a_moving_average_that_evaluation_leaves_alone() -> None:
    layer = InputRange(8)
    batches = [drawn(50, seed=seed) for seed in range(3)]
    low = float(batches[0].min())
    for batch in batches:
        layer(batch)
        low += 0.1 * (float(batch.min()) - low)
    assert float(layer.range[0]) == pytest.approx(low)
    before = layer.range.clone()
    layer.eval()(100 * batches[0])
    assert torch.equal(layer.range, before)


def test_inputs_pass_unchanged_before_the_first_batch() -> None:
    layer, inputs = InputRange(4).eval(), drawn(9)
    assert torch.equal(layer(inputs), inputs)
    assert torch.equal(gradient(layer, inputs), weights_of(inputs))
