import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedsparse.sparsity import Topology, weight_layers
from fedsparse.sparsity.densities import erk
from fedsparse.sparsity.topology import initialise_
from fedsparse.vector import FlatModel, Layout
from tests.fedsparse.sparsity.architectures import QUICK, architectures, generator, layers_of, small_cnn, topology_of


def random_topology(sparsity: float, seed: int = 0) -> Topology:
    layers, parameters = layers_of(small_cnn())
    return Topology.random(layers, parameters, erk(layers, sparsity), generator(seed))


def test_only_convolution_and_linear_weights_are_layers_and_the_first_and_last_stay_dense():
    layers, _ = layers_of(small_cnn())
    assert [(layer.name, layer.groups, layer.dense) for layer in layers] == [
        ("0.weight", 1, True),
        ("3.weight", 2, False),
        ("5.weight", 8, False),
        ("8.weight", 1, False),
        ("10.weight", 1, True),
    ]


def test_dense_layers_can_be_named_and_a_wrong_name_is_refused():
    layers, _ = layers_of(small_cnn(), ["8", "3.weight"])
    assert [layer.name for layer in layers if layer.dense] == ["3.weight", "8.weight"]
    assert not any(layer.dense for layer in layers_of(small_cnn(), [])[0])
    with pytest.raises(ValueError, match=r"no layer 'fc9'; there are 0\.weight, 3\.weight"):
        layers_of(small_cnn(), ["fc9"])


def test_frozen_weights_are_no_layers():
    model = small_cnn()
    model[3].requires_grad_(False)
    assert "3.weight" not in [layer.name for layer in weight_layers(model, Layout.of(model))]


def test_weights_tied_to_an_embedding_are_no_layers_and_recurrent_matrices_are():
    model = nn.ModuleDict({"embed": nn.Embedding(10, 4), "rnn": nn.LSTM(4, 4), "out": nn.Linear(4, 10)})
    model["out"].weight = model["embed"].weight
    assert [layer.name for layer in layers_of(model, [])[0]] == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]


@QUICK
@given(architectures(), st.floats(0.01, 0.99), st.integers(0, 9))
def test_a_random_topology_has_exactly_the_counts_asked_for_and_is_true_where_nothing_is_prunable(
    model, sparsity, seed
):
    layers, parameters = layers_of(model, [])
    topology = Topology.random(layers, parameters, erk(layers, sparsity), generator(seed))
    assert topology.counts == erk(layers, sparsity)
    assert topology.mask.shape == (parameters,)
    assert bool(topology.mask[~topology.prunable].all())
    assert int(topology.prunable.sum()) == sum(layer.size for layer in layers)


def test_one_seed_gives_one_topology():
    assert random_topology(0.5).hash == random_topology(0.5).hash != random_topology(0.5, seed=1).hash


def test_a_topology_is_rebuilt_from_its_mask_and_its_version():
    first = random_topology(0.5)
    topology = first.changed(random_topology(0.5, seed=1).mask)
    again = Topology(first.layers, topology.mask, topology.version)
    assert (again.hash, again.version, again.counts) == (topology.hash, 1, topology.counts)


def test_masked_weights_are_exactly_zero_after_momentum_and_weight_decay():
    model = FlatModel(small_cnn())
    layers, parameters = layers_of(model.module)
    topology = Topology.random(layers, parameters, erk(layers, 0.5), generator())
    topology.apply_(model.vector)
    optimizer = torch.optim.SGD(model.module.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        model.module(torch.randn(8, 1, 8, 8)).square().mean().backward()
        optimizer.step()
        topology.apply_(model.vector)
    dead = model.vector[:parameters][~topology.mask]
    assert dead.numel() > 0
    assert torch.equal(dead.view(torch.int32), torch.zeros(dead.numel(), dtype=torch.int32))  # +0, not -0


def test_applying_a_topology_leaves_buffers_alone_and_removes_even_nan():
    topology = random_topology(0.5)
    vector = torch.full((topology.mask.numel() + 3,), torch.nan)
    topology.apply_(vector)
    assert not bool(vector[:-3][~topology.mask].any())
    assert bool(vector[-3:].isnan().all())


@pytest.mark.parametrize("value", [True, False])
def test_masks_all_one_and_all_zero_are_topologies(value):
    topology = topology_of(small_cnn(), value)
    assert topology.density == float(value)
    assert sum(topology.counts) == (sum(layer.size for layer in topology.layers) if value else 0)


def test_a_mask_of_one_weight_is_a_topology():
    weights = sum(layer.size for layer in layers_of(small_cnn(), [])[0])
    assert sum(topology_of(small_cnn(), torch.arange(weights) == 7).counts) == 1


def test_a_changed_mask_is_a_new_version_and_the_same_mask_is_the_same_topology():
    topology = random_topology(0.5)
    assert topology.changed(topology.mask.clone()) is topology
    swapped = topology.mask.clone()
    layer = topology.layers[3]
    here = swapped[layer.slice]
    here[here.nonzero()[0]], here[(~here).nonzero()[0]] = False, True
    assert topology.changed(swapped).version == 1
    assert topology.version == 0


def test_a_sparsity_that_drifts_is_refused():
    topology = random_topology(0.5)
    fewer = topology.mask.clone()
    fewer[(topology.mask & topology.prunable).nonzero()[0]] = False
    with pytest.raises(ValueError, match="counts of a topology are fixed"):
        topology.changed(fewer)
    assert sum(topology.changed(fewer, counts=True).counts) == sum(topology.counts) - 1


def test_a_mask_that_prunes_a_bias_is_refused():
    topology = random_topology(0.5)
    with pytest.raises(ValueError, match="True wherever nothing can be pruned"):
        topology.changed(torch.zeros_like(topology.mask), counts=True)


def test_initial_weights_keep_the_variance_of_a_units_sum():
    layers, parameters = layers_of(torch.nn.Linear(400, 200, bias=False), [])
    topology = Topology.random(layers, parameters, [8000], generator())
    dense = torch.randn(parameters, generator=generator(1))
    sparse = initialise_(dense.clone(), topology)
    inputs = torch.randn(300, 400, generator=generator(2))
    spread = [(inputs @ weights.view(200, 400).T).std() for weights in (sparse, dense)]
    assert float(spread[0]) == pytest.approx(float(spread[1]), rel=0.05)
    full = Topology.full(layers, parameters)
    assert torch.equal(initialise_(dense.clone(), full), dense)
