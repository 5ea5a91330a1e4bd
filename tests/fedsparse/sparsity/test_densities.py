from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedsparse.sparsity import Layer
from fedsparse.sparsity.densities import DISTRIBUTIONS, er, erk, uniform
from tests.fedsparse.sparsity.architectures import QUICK, architectures, layers_of, small_cnn

EVERY = pytest.mark.parametrize("allocate", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS.keys())


def layer(name: str, *shape: int, groups: int = 1, dense: bool = False) -> Layer:
    size = 1
    for side in shape:
        size *= side
    return Layer(name, shape, 0, size, groups, dense)


def test_erk_golden_vector_of_lenet_300_100():
    # Raw densities (n + m) / (n m): 1084/235200, 400/30000, 110/1000. At 0.9 the scale times 0.11 exceeds 1, so the
    # last layer is full and the rest share 26620 - 1000 weights in the ratio 1084 : 400.
    layers = (layer("a", 300, 784), layer("b", 100, 300), layer("c", 10, 100))
    assert erk(layers, 0.9) == (18714, 6906, 1000)
    # At 0.99 nothing exceeds 1: 2662 weights in the ratio 1084 : 400 : 110.
    assert erk(layers, 0.99) == (1810, 668, 184)


def test_erk_golden_vector_of_convolutions():
    # Sums of dimensions 25, 54, 102; budget 5731 of 57312 weights; scale 5731 / 181 times 25 exceeds 144 (and 54 only
    # 4608 / 31.7 = 145 would): layer a is full and 5587 weights go out in the ratio 54 : 102.
    layers = (layer("a", 16, 1, 3, 3), layer("b", 32, 16, 3, 3), layer("c", 64, 32, 3, 3), layer("d", 64, 532))
    kept = erk(layers, 0.9)
    total = round(0.1 * sum(each.size for each in layers))
    assert sum(kept) == total
    assert kept[0] == 144
    scale = (total - 144) / (32 + 16 + 6 + 64 + 32 + 6 + 64 + 532)
    assert kept[1] == round(scale * 54)
    assert kept[2] == round(scale * 102)


def test_er_golden_vector_leaves_the_kernel_out_of_a_convolutions_density():
    # Budget 0.05 (4608 + 50176) = 2739 in the ratio 48 * 9 : 1600; erk has 54 : 1600.
    layers = (layer("a", 32, 16, 3, 3), layer("b", 32, 1568))
    assert er(layers, 0.95) == (582, 2157)
    assert erk(layers, 0.95) == (89, 2650)


def test_er_is_erk_for_linear_layers():
    layers = (layer("a", 300, 784), layer("b", 100, 300), layer("c", 10, 100))
    assert er(layers, 0.9) == erk(layers, 0.9)


def test_a_depthwise_layer_uses_the_shape_of_one_group():
    assert layer("depthwise", 32, 1, 3, 3, groups=32).group_shape == (1, 1, 3, 3)
    layers = (layer("depthwise", 32, 1, 3, 3, groups=32), layer("b", 64, 32, 3, 3))
    raw = (8 / 9, (64 + 32 + 3 + 3) / (64 * 32 * 9))
    budget = round(0.02 * (288 + 18432))
    scale = budget / (raw[0] * 288 + raw[1] * 18432)
    assert erk(layers, 0.98) == (round(scale * raw[0] * 288), budget - round(scale * raw[0] * 288))


def test_erk_scales_the_density_and_not_the_sparsity():
    layers = (layer("a", 10, 10), layer("b", 1000, 1000))
    small, large = erk(layers, 0.9)
    assert small == 100  # full: its raw density is a hundred times the other's
    assert large == round(0.1 * 1000100) - 100


@QUICK
@given(architectures(), st.floats(0.01, 0.99), st.booleans())
def test_erk_densities_are_one_scale_times_the_papers_formula_or_one(model, sparsity, keep_ends):
    layers, _ = layers_of(model, ["first", "last"] if keep_ends else [])
    try:
        counts = erk(layers, sparsity)
    except ValueError:
        assert keep_ends
        return
    scales, slack = [], len(layers)
    largest = max((each for each in layers if not each.dense), key=lambda each: each.size, default=None)
    for each, count in zip(layers, counts, strict=True):
        raw = each.size * sum(each.group_shape) / (each.size // each.groups if each.groups > 1 else each.size)
        if not each.dense and each is not largest and count < each.size:
            scales.append(((count - 0.51) / raw, (count + 0.51) / raw))
    if scales:  # apart from rounding, all layers have one scale
        assert max(low for low, _ in scales) <= min(high for _, high in scales) + slack * 1e-9


@EVERY
@QUICK
@given(model=architectures(), sparsity=st.floats(0, 1))
def test_the_total_is_met_to_the_weight(allocate, model, sparsity):
    layers, _ = layers_of(model, [])
    counts = allocate(layers, sparsity)
    assert sum(counts) == round((1 - sparsity) * sum(each.size for each in layers))
    assert all(0 <= count <= each.size for each, count in zip(layers, counts, strict=True))


@EVERY
def test_dense_layers_are_full_and_the_other_layers_are_sparser_for_it(allocate):
    layers, _ = layers_of(small_cnn())
    counts = allocate(layers, 0.5)
    assert all(count == each.size for each, count in zip(layers, counts, strict=True) if each.dense)
    assert sum(counts) == round(0.5 * sum(each.size for each in layers))


@EVERY
def test_more_sparsity_than_the_dense_layers_allow_is_one_clear_line(allocate):
    layers, _ = layers_of(small_cnn())
    message = "sparsity = 0.99 keeps 9 of 924 weights, but 196 are in dense layers .0.weight, 10.weight."
    with pytest.raises(ValueError, match=message) as error:
        allocate(layers, 0.99)
    assert "\n" not in str(error.value)


@EVERY
@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan")])
def test_a_sparsity_out_of_range_is_refused(allocate, sparsity):
    with pytest.raises(ValueError, match="should be within 0 and 1"):
        allocate((layer("a", 10, 10),), sparsity)


def test_uniform_gives_every_layer_the_same_density_and_the_residue_to_the_largest():
    layers = (layer("a", 3, 5), layer("b", 7, 11), layer("c", 2, 4))
    assert uniform(layers, 0.5) == (8, 38, 4)  # 7.5, 38.5 and 4 rounded, 50 in all
    layers = (layer("a", 3, 3), layer("b", 3, 3), layer("c", 7, 3))
    assert uniform(layers, 0.6) == (4, 4, 8)


@EVERY
def test_sparsity_zero_keeps_all_and_one_keeps_nothing(allocate):
    layers, _ = layers_of(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), [])
    assert allocate(layers, 0.0) == (16, 8)
    assert allocate(layers, 1.0) == (0, 0)


def rigl_densities(sizes: dict[str, tuple[int, ...]], sparsity: float, kernel: bool) -> dict[str, float]:
    """The densities of RigL's code, by its words: layers whose share of epsilon exceeds 1 become dense, one by one."""
    full: set[str] = set()
    while True:
        wanted = sum((1 - sparsity) * prod(s) for s in sizes.values()) - sum(prod(sizes[name]) for name in full)
        raw = {n: sum(s if kernel else s[:2]) / prod(s if kernel else s[:2]) for n, s in sizes.items() if n not in full}
        epsilon = wanted / sum(raw[name] * prod(sizes[name]) for name in raw)
        highest = max(raw.values())
        if epsilon * highest <= 1:
            return {name: 1.0 if name in full else epsilon * raw[name] for name in sizes}
        full |= {name for name, value in raw.items() if value == highest}


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9, 0.98])
@pytest.mark.parametrize("name", ["erk", "er"])
def test_of_the_prunable_weights_alone_the_densities_are_those_of_rigls_code_whose_first_layer_is_dense(name, sparsity):
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 1), nn.Linear(800, 64))
    layers, _ = layers_of(nn.Sequential(model, nn.Linear(64, 10)), ["first"])
    first, *pruned = layers
    wanted = rigl_densities({each.name: each.shape for each in pruned}, sparsity, kernel=name == "erk")
    counts = DISTRIBUTIONS[name](layers, sparsity, "prunable")
    assert counts[0] == first.size
    assert sum(counts[1:]) == round((1 - sparsity) * sum(each.size for each in pruned))
    for each, count in zip(pruned, counts[1:], strict=True):
        assert abs(count - wanted[each.name] * each.size) <= len(pruned)  # rounding, whose residue one layer takes


def test_of_all_weights_dense_layers_take_from_the_others_and_of_the_prunable_ones_they_do_not():
    layers = (layer("first", 4, 10, dense=True), layer("a", 10, 10), layer("b", 10, 10))
    assert uniform(layers, 0.75) == (40, 10, 10)
    assert uniform(layers, 0.75, "prunable") == (40, 25, 25)
    assert uniform(layers, 0.95, "prunable") == (40, 5, 5)
    with pytest.raises(ValueError, match="40 are in dense layers"):
        uniform(layers, 0.95)
