"""The election after pruning before upload, against its definition."""

import pytest
import torch
from torch import nn

from fedsparse.aggregation.mean import Votes
from fedsparse.sparsity.method import RoundResult
from fedsparse.sparsity.topology import Topology, weight_layers
from fedsparse.sparsity.upload_pruning import UploadPruning
from fedsparse.vector import Layout

NET = nn.Sequential(
    nn.Conv2d(1, 4, 3),
    nn.Conv2d(4, 6, 3),
    nn.Conv2d(6, 6, 3, groups=6),
    nn.Flatten(),
    nn.Linear(6, 10),
    nn.Linear(10, 3),
)
LAYOUT = Layout.of(NET)
LAYERS = weight_layers(NET, LAYOUT)
PRUNED = [layer for layer in LAYERS if not layer.dense]


def elected(method: UploadPruning, votes: torch.Tensor, held: torch.Tensor) -> Topology:
    full = Topology.full(LAYERS, LAYOUT.parameters)
    weights = torch.zeros(LAYOUT.parameters)
    return method.decide(full, RoundResult(1, weights, torch.Generator(), votes=Votes(votes, held)))


def ballots(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    votes = torch.randn(LAYOUT.parameters, generator=generator, dtype=torch.float64)
    held = torch.full((LAYOUT.parameters,), 3.0, dtype=torch.float64)
    for layer in PRUNED:
        some = torch.rand(layer.size, generator=generator) < 0.3
        held[layer.slice][some] = 0.0
        votes[layer.slice][some] = 0.0
    return votes, held


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
def test_each_layer_keeps_its_count_of_the_largest_votes(sparsity: float) -> None:
    votes, held = ballots()
    topology = elected(UploadPruning(sparsity), votes, held)
    for layer, count in zip(LAYERS, topology.counts, strict=True):
        if layer.dense:
            assert count == layer.size
            continue
        assert count == round((1 - sparsity) * layer.size)
        order = sorted(range(layer.size), key=lambda i, layer=layer: (-abs(float(votes[layer.start + i])), i))
        assert topology.mask[layer.slice].nonzero().flatten().tolist() == sorted(order[:count])


def test_of_a_layer_with_fewer_than_m_channels_n_are_elected_and_no_memory_is_lost() -> None:
    votes, held = ballots()
    topology = elected(UploadPruning(0.5, nm=(2, 10**9)), votes, held)
    for layer in PRUNED:
        mask = topology.mask[layer.slice].view(*layer.shape[:2], -1)
        assert (mask.sum(1) == min(2, layer.shape[1])).all()


def test_two_of_four_input_channels_are_elected_at_every_kernel_position() -> None:
    votes, held = ballots()
    topology = elected(UploadPruning(0.5, nm=(2, 4)), votes, held)
    for layer in PRUNED:
        mask = topology.mask[layer.slice].view(*layer.shape[:2], -1)
        scores = votes[layer.slice].abs().view_as(mask)
        for start in range(0, layer.shape[1], 4):
            group, points = mask[:, start : start + 4], scores[:, start : start + 4]
            assert (group.sum(1) == min(2, group.shape[1])).all()
            kept = points.masked_fill(~group, torch.inf).amin(1)
            assert (kept >= points.masked_fill(group, -torch.inf).amax(1)).all()


def test_a_layer_that_no_client_pruned_stays_whole() -> None:
    votes, held = ballots()
    first, *rest = PRUNED
    held[first.slice] = 3.0
    topology = elected(UploadPruning(0.9), votes, held)
    assert bool(topology.mask[first.slice].all())
    assert all(not bool(topology.mask[layer.slice].all()) for layer in rest)


def test_a_round_without_replies_changes_nothing() -> None:
    full = Topology.full(LAYERS, LAYOUT.parameters)
    assert UploadPruning(0.5).decide(full, RoundResult(1, torch.zeros(LAYOUT.parameters), torch.Generator())) is full
