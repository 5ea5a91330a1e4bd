import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedsparse.compression.wire import PayloadError
from fedsparse.sparsity import Topology
from fedsparse.sparsity.densities import uniform
from fedsparse.sparsity.masks import decode_mask, encode_mask
from fedsparse.sparsity.readjust import readjust
from tests.fedsparse.sparsity.architectures import QUICK, architectures, generator, layers_of, small_cnn, topology_of


def make(model: nn.Module, sparsity: float, seed: int = 0) -> Topology:
    layers, parameters = layers_of(model, [])
    return Topology.random(layers, parameters, uniform(layers, sparsity), generator(seed))


def moved(topology: Topology, fraction: float) -> Topology:
    weights = torch.randn(topology.mask.numel(), generator=generator(1))
    return readjust(topology, weights, torch.rand(weights.shape, generator=generator(2)), fraction)


def received(data: bytes, like: Topology, base: Topology | None = None) -> Topology:
    return decode_mask(data, like.layers, like.mask.numel(), base)


@QUICK
@given(architectures(), st.floats(0, 1), st.floats(0, 1))
def test_a_mask_is_decoded_with_and_without_a_base(model, sparsity, fraction):
    old = make(model, sparsity)
    new = moved(old, fraction)
    for base in (None, old):
        got = received(encode_mask(new, base), new, base)
        assert torch.equal(got.mask, new.mask)
        assert (got.version, got.hash) == (new.version, new.hash)


@pytest.mark.parametrize(("sparsity", "bits"), [(0.5, 1.0), (0.8, 0.74), (0.9, 0.485), (0.95, 0.3)])
def test_a_mask_costs_less_than_a_bit_a_weight(sparsity, bits):
    topology = make(nn.Linear(500, 1000, bias=False), sparsity)
    assert 8 * len(encode_mask(topology)) / 500_000 <= bits * 1.003


def test_the_difference_after_a_readjustment_costs_less_again():
    old = make(nn.Linear(500, 1000, bias=False), 0.9)
    new = moved(old, 0.1)
    assert len(encode_mask(new, old)) < 0.4 * len(encode_mask(new))


def test_a_mask_does_not_need_a_base_that_saves_no_bytes():
    old, new = make(nn.Linear(100, 100), 0.99), make(nn.Linear(100, 100), 0.99, seed=1)
    assert received(encode_mask(new, old), new).hash == new.hash


@pytest.mark.parametrize("value", [True, False])
def test_masks_all_one_and_all_zero_cost_a_few_bytes(value):
    topology = topology_of(nn.Linear(100, 100), value)
    data = encode_mask(topology)
    assert len(data) < 50
    assert received(data, topology).hash == topology.hash


def test_a_mask_of_one_weight_costs_a_few_bytes():
    topology = topology_of(nn.Linear(100, 100), torch.arange(10_000) == 1234)
    assert len(encode_mask(topology)) < 60
    assert received(encode_mask(topology), topology).hash == topology.hash


def test_a_difference_from_another_base_is_refused():
    old = make(nn.Linear(100, 100), 0.9)
    data = encode_mask(moved(old, 0.1), old)
    with pytest.raises(PayloadError, match="the receiver holds none"):
        received(data, old)
    with pytest.raises(PayloadError, match="difference from topology"):
        received(data, old, make(nn.Linear(100, 100), 0.9, seed=3))


def test_a_mask_of_another_model_is_refused():
    topology, other = make(nn.Linear(100, 100), 0.9), make(nn.Linear(100, 90), 0.9)
    with pytest.raises(PayloadError):
        received(encode_mask(topology), other)


@QUICK
@given(st.data())
def test_truncations_and_bit_flips_are_refused(data):
    topology = make(small_cnn(), 0.7)
    coded = bytearray(encode_mask(topology))
    if data.draw(st.booleans()):
        del coded[data.draw(st.integers(0, len(coded) - 1)) :]
    else:
        at = data.draw(st.integers(0, len(coded) - 1))
        coded[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(PayloadError):
        received(bytes(coded), topology)


@QUICK
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(noise):
    with pytest.raises(PayloadError):
        received(noise, make(small_cnn(), 0.7))
