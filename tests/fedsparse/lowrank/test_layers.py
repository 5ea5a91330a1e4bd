"""Low-rank layers against their definitions, and networks in which they replace others."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedsparse.lowrank import factor_, smaller_rank
from fedsparse.lowrank.factorable_layers import factorable
from fedsparse.lowrank.fedpara import FedPara
from fedsparse.lowrank.svd import LowRank, matrix_of
from fedsparse.models import build_model

torch.manual_seed(0)
LAYERS: dict[str, tuple[nn.Module, Tensor]] = {
    "linear": (nn.Linear(30, 20), torch.randn(5, 30)),
    "tokens": (nn.Linear(30, 20, bias=False), torch.randn(2, 5, 30)),
    "kernel": (nn.Conv2d(6, 8, 3, padding=1), torch.randn(2, 6, 12, 14)),
    "strides": (nn.Conv2d(6, 8, (3, 5), stride=(2, 1), padding=(1, 2)), torch.randn(2, 6, 12, 14)),
    "pointwise": (nn.Conv2d(6, 8, 1, bias=False), torch.randn(2, 6, 4, 4)),
    "reflect": (nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"), torch.randn(2, 6, 9, 9)),
    "same": (nn.Conv2d(6, 8, 3, padding="same", dilation=2), torch.randn(2, 6, 9, 9)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_at_full_rank_the_factors_of_a_layer_compute_what_the_layer_does(name: str) -> None:
    old, x = LAYERS[name]
    expected = old(x)
    layer = LowRank(copy.deepcopy(old), LowRank.largest_rank(old))
    layer.set_weight_(old.weight.detach())
    torch.testing.assert_close(layer.weight, old.weight)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_at_a_lower_rank_the_factors_are_the_truncated_svd_and_the_layer_computes_with_their_product(name: str) -> None:
    old, x = LAYERS[name]
    layer = LowRank(copy.deepcopy(old), 3)
    layer.set_weight_(old.weight.detach())
    values = torch.linalg.svdvals(matrix_of(old.weight.detach()))
    error = (layer.weight - old.weight).norm()
    torch.testing.assert_close(error.detach(), values[3:].norm())
    torch.testing.assert_close(layer(x), functional_call(old, {"weight": layer.weight}, (x,)))


@pytest.mark.parametrize("name", LAYERS)
def test_a_new_layer_has_the_mean_square_of_the_dense_layers_weights(name: str) -> None:
    old, _ = LAYERS[name]
    torch.testing.assert_close(LowRank(copy.deepcopy(old), 3).weight.square().mean(), old.weight.square().mean())


@pytest.mark.parametrize("old", [nn.Linear(300, 200), nn.Conv2d(64, 96, 3)], ids=["linear", "convolution"])
def test_fedpara_starts_with_about_the_mean_square_of_the_dense_layers_weights(old: nn.Module) -> None:
    torch.manual_seed(0)
    draws = torch.stack([FedPara(copy.deepcopy(old), 8).weight.square().mean() for _ in range(20)])
    torch.testing.assert_close(draws.mean() / old.weight.square().mean(), torch.tensor(1.0), rtol=0.1, atol=0.0)


@pytest.mark.parametrize("name", LAYERS)
def test_fedpara_computes_with_its_product(name: str) -> None:
    old, x = LAYERS[name]
    layer = FedPara(copy.deepcopy(old), 2)
    torch.testing.assert_close(layer(x), functional_call(old, {"weight": layer.weight}, (x,)))


def test_fedpara_of_rank_r_has_weights_of_rank_r_squared() -> None:
    assert torch.linalg.matrix_rank(FedPara(nn.Linear(30, 30), 3).weight) == 9


@pytest.mark.parametrize("form", [LowRank, FedPara])
@pytest.mark.parametrize("name", LAYERS)
def test_the_size_of_factors_is_that_of_their_tensors(form: type, name: str) -> None:
    old = copy.deepcopy(LAYERS[name][0])
    size, bias = form.size(old, 2), 0 if old.bias is None else old.bias.numel()
    assert sum(p.numel() for p in form(old, 2).parameters()) == size + bias


def test_a_vector_of_scales_beside_s_adds_no_function() -> None:
    layer, scales, x = LowRank(nn.Linear(30, 20), 5), torch.randn(5), torch.randn(4, 30)
    with_both = layer.up(layer.down(x) * layer.s * scales)
    layer.s.data *= scales
    torch.testing.assert_close(layer(x), with_both)


@pytest.mark.parametrize("form", ["svd", "fedpara"])
@pytest.mark.parametrize(("model", "shape"), [("lenet5", (3, 32, 32)), ("gpt2-nano", (16,))])
def test_networks_train_with_factors_in_their_convolutions_and_attention(
    model: str, shape: tuple[int, ...], form: str
) -> None:
    network = build_model(model, shape, 12, "group", seed=0)
    before = sum(p.numel() for p in network.parameters())
    ranks = {name: smaller_rank(form, layer, 0.1) for name, layer in factorable(network, []).items()}
    factor_(network, ranks, form, seed=0)
    inputs = torch.randn(2, *shape) if len(shape) == 3 else torch.randint(12, (2, *shape))
    network(inputs).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) < 0.5 * before
    assert "h.0.attn.c_attn" in ranks or "3" in ranks


@pytest.mark.parametrize("form", ["svd", "fedpara"])
def test_factors_follow_from_the_seed_and_clients_can_be_stacked(form: str) -> None:
    def network() -> nn.Module:
        model = build_model("cnn-small", (1, 28, 28), 10, "batch", seed=0)
        return factor_(model, {"3": 4, "7": 0}, form, seed=1)

    one, two = network(), network()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    stacked = {name: torch.stack([p, 2 * p]) for name, p in one.named_parameters()}
    x = torch.randn(2, 3, 1, 28, 28)
    outputs = vmap(lambda weights, x: functional_call(one, weights, (x,)))(stacked, x)
    torch.testing.assert_close(outputs[0], one(x[0]), rtol=1e-4, atol=1e-5)


def test_tied_weights_depthwise_convolutions_and_subclasses_are_not_factored() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), Own(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[3].weight
    assert list(factorable(model, [])) == ["4"]
    assert not factorable(model, ["4"])
