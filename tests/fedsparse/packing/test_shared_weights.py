"""Layers with shared values: what they compute, and how their gradients move the values."""

import numpy as np
import torch
from torch import Tensor, nn

from fedsparse.models import build_model
from fedsparse.packing.shared_weights import SharedWeights, share, trained
from fedsparse.vector import FlatModel

X = torch.randn(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
NAMES = ("0.weight", "7.weight")


def network() -> nn.Module:
    module = build_model("cnn-small", (1, 12, 12), 3, "batch", seed=1)
    with torch.no_grad():
        module.get_parameter("7.weight")[:, ::3] = 0
    return module


def clustered(module: nn.Module, clusters: int = 9) -> dict[str, SharedWeights]:
    return {name: SharedWeights.of(module.get_parameter(name), clusters) for name in NAMES}


def test_a_module_computes_with_its_shared_weights() -> None:
    module, plain = network(), network()
    shared = clustered(module)
    for name, weights in shared.items():
        plain.get_parameter(name).data = weights.tensor()
        assert len(weights.tensor().unique()) <= 10
    share(module, shared)
    assert torch.equal(module(X), plain(X))
    assert FlatModel(module).layout.parameters == sum(
        p.numel() for name, p in plain.named_parameters() if name not in NAMES
    ) + sum(len(weights.values) for weights in shared.values())


def test_zeros_stay_zero_and_have_no_value() -> None:
    module = network()
    weights = clustered(module)["7.weight"]
    assert torch.equal(weights.tensor() == 0, module.get_parameter("7.weight") == 0)
    assert (weights.values != 0).all()


def test_a_values_gradient_is_the_mean_of_its_weights_gradients() -> None:
    """By the definition of the step: each value moves as its weights would move on average."""
    module, plain = network(), network()
    shared = clustered(module)
    for name, weights in shared.items():
        plain.get_parameter(name).data = weights.tensor()
    share(module, shared)
    for each in (module, plain):
        each(X).square().sum().backward()
        with torch.no_grad():
            for p in each.parameters():
                p -= 0.1 * p.grad
    for name, weights in trained(module, shared).items():
        free: Tensor = plain.get_parameter(name).detach().flatten()
        means = [float(free[weights.codes == c + 1].mean()) for c in range(len(weights.values))]
        np.testing.assert_allclose(weights.values, means, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_trained_as_shared_values_is_frozen() -> None:
    module = nn.LSTM(8, 8)
    shared = {"weight_ih_l0": SharedWeights.of(module.weight_ih_l0, 4)}
    share(module, shared)
    assert not module.weight_ih_l0.requires_grad
    assert len(module.weight_ih_l0.unique()) == 4
    assert trained(module, shared)["weight_ih_l0"].values is shared["weight_ih_l0"].values
