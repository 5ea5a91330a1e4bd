"""Networks with quantised layers, and the weights that the server sends for them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedsparse.compression import decode
from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.models import build_model
from fedsparse.models.initial import load_weights
from fedsparse.quantisation import few_bits, few_bits_layers
from fedsparse.quantisation.binary import Binary
from fedsparse.quantisation.few_bits_broadcast import few_bits_payload
from fedsparse.quantisation.spread import spread_weights
from fedsparse.quantisation.symmetric import Symmetric
from fedsparse.quantisation.ternary import Ternary
from fedsparse.quantisation.weights import WeightQuantiser
from fedsparse.sparsity import Topology, weight_layers
from fedsparse.sparsity.compact import Compact
from fedsparse.vector import FlatModel, Layout

X = torch.randn(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def network(*arguments, model: str = "cnn-small", **settings) -> FlatModel:
    module = build_model(model, (1, 12, 12), 3, "batch", seed=1)
    few_bits(module, *arguments, **{"float_layers": ("first", "last")} | settings)
    return FlatModel(module)


def compact_of(model: FlatModel, density: float) -> Compact:
    layers = weight_layers(model.module, model.layout)
    counts = [round(density * layer.size) for layer in layers]
    sparse = Topology.random(layers, model.layout.parameters, counts, torch.Generator().manual_seed(2))
    return Compact(model.layout, sparse if density < 1 else Topology.full(layers, model.layout.parameters))


def test_quantised_layers_have_the_layout_of_float_ones() -> None:
    assert network(4, 0).layout == Layout.of(build_model("cnn-small", (1, 12, 12), 3, "batch", seed=1))


def test_first_and_last_layers_keep_float_weights() -> None:
    assert set(few_bits_layers(network(4, 0).module)) == {"3.weight", "7.weight"}
    assert len(few_bits_layers(network(4, 0, float_layers=()).module)) == 4


def test_a_network_computes_with_its_quantised_weights() -> None:
    model = network(2, 0)
    outputs = model.module.eval()(X)
    for weight, quantiser in few_bits_layers(model.module).values():
        weight.data = quantiser(weight).detach()
    plain = build_model("cnn-small", (1, 12, 12), 3, "batch", seed=1)
    plain.load_state_dict(model.module.state_dict())
    torch.testing.assert_close(outputs, plain.eval()(X))
    assert not torch.allclose(outputs, build_model("cnn-small", (1, 12, 12), 3, "batch", seed=1).eval()(X))


def test_folding_batchnorm_commutes_with_a_step_for_each_channel() -> None:
    """Section 3.2 of Jacob et al. folds BatchNorm into the weights; here it makes no difference."""
    generator = torch.Generator().manual_seed(3)
    convolution, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4).eval()
    norm.weight.data = torch.randn(4, generator=generator)
    norm.running_var.copy_(torch.rand(4, generator=generator) + 0.1)
    norm.running_mean.copy_(torch.randn(4, generator=generator))
    folded = nn.utils.fuse_conv_bn_eval(convolution.eval(), norm)
    few_bits(before := nn.Sequential(convolution, norm).eval(), 4, 0)
    few_bits(after := nn.Sequential(folded).eval(), 4, 0)
    inputs = torch.randn(2, 3, 8, 8, generator=generator)
    torch.testing.assert_close(before(inputs), after(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("settings", [(8,), (4,), (2,), (1,), (8, 0, True), (4, 0, True), (2, 8, True)], ids=str)
def test_the_server_sends_the_weights_that_the_network_computes_with(settings: tuple, density: float) -> None:
    model = network(*settings) if len(settings) > 1 else network(*settings, 0)
    compact = compact_of(model, density)
    weights = model.vector.clone()
    weights[: model.layout.parameters] *= compact.topology.mask
    received = torch.empty_like(weights)
    payload = few_bits_payload(model, weights, compact, round=1)
    received.copy_(torch.from_numpy(compact.scatter(decode(payload, compact.layout)).as_dense()))
    model.vector.copy_(weights)
    quantised = few_bits_layers(model.module)
    for entry in model.layout.entries:
        sent = received[entry.slice].view(entry.shape)
        if entry.name in quantised:
            weight, quantiser = quantised[entry.name]
            assert torch.equal(sent, quantiser(weight).detach())
        else:
            assert torch.equal(sent, weights[entry.slice].view(entry.shape))
    outputs = model.module.eval()(X)
    model.vector.copy_(received)
    torch.testing.assert_close(model.module(X), outputs)


@pytest.mark.parametrize(("bits", "most"), [(8, 1.0), (4, 0.5), (2, 0.2), (1, 0.125)])
def test_a_message_has_so_many_bytes_a_weight_and_a_step_a_channel(bits: int, most: float) -> None:
    model = network(bits, 0)
    payload = few_bits_payload(model, model.vector.clone(), compact_of(model, 1.0), round=1)
    layers = [model.layout.entries[2], model.layout.entries[4]]
    few, channels = sum(e.size for e in layers), sum(e.shape[0] for e in layers)
    rest = 4 * (model.layout.size - few) + 200
    assert few * most < len(payload) < few * most + 4 * channels + rest


@pytest.mark.parametrize("bits", [8, 4, 2, 1])
def test_a_grown_weight_arrives_as_zero(bits: int) -> None:
    model = network(bits, 0)
    weights, entry = model.vector.clone(), model.layout.entries[2]
    weights[entry.start + 5] = 0
    received = decode(few_bits_payload(model, weights, compact_of(model, 1.0), round=1), model.layout).as_dense()
    assert received[entry.start + 5] == 0
    assert received[entry.start + 6] != 0 or bits == 2


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("settings", [(8, 0), (4, 0), (2, 0), (1, 0), (8, 0, True), (4, 0, True)], ids=str)
def test_weights_that_a_client_spreads_compute_what_it_was_sent(settings: tuple, density: float) -> None:
    model = network(*settings)
    topology = compact_of(model, density).topology
    model.vector[: model.layout.parameters] *= topology.mask
    for weight, quantiser in few_bits_layers(model.module).values():
        weight.data.copy_(quantiser(weight).detach())
    sent = model.vector.clone()
    spread_weights(model, topology, seed=4)
    assert not model.vector[: model.layout.parameters][~topology.mask].any()
    for entry in model.layout.trainable:
        if entry.name in (quantised := few_bits_layers(model.module)):
            weight, quantiser = quantised[entry.name]
            assert not torch.equal(weight.flatten(), sent[entry.slice])
            torch.testing.assert_close(quantiser(weight).flatten(), sent[entry.slice])
        else:
            assert torch.equal(model.vector[entry.slice], sent[entry.slice])


@pytest.mark.parametrize("quantiser", [Symmetric(8), Symmetric(4), Ternary(2), Binary(1)])
def test_a_small_move_of_spread_weights_changes_as_many_levels_as_on_the_server(quantiser: WeightQuantiser) -> None:
    servers, noise, ways = (torch.rand(3, 4, 5000, generator=torch.Generator().manual_seed(5)) - 0.5).unbind()
    levels = quantiser.levels(servers)
    move = 0.1 * levels.step * ways.sign()

    def changed(weight: Tensor) -> float:
        return float((quantiser.levels(weight + move).whole != quantiser.levels(weight).whole).float().mean())

    assert changed(levels.whole * levels.step) < 0.002
    assert changed(quantiser.spread(levels, noise)) == pytest.approx(changed(servers), rel=0.25)


def test_a_float_models_file_starts_a_quantised_one(tmp_path: Path) -> None:
    plain = build_model("cnn-small", (1, 12, 12), 3, "batch", seed=5)
    torch.save(plain.state_dict(), tmp_path / "model.pt")
    module = network(4, 8, True).module
    load_weights(module, tmp_path / "model.pt", "cnn-small")
    step = module.state_dict()["3.of_weights.step"]
    assert float(step) == pytest.approx(2 * float(plain.state_dict()["3.weight"].abs().mean()) / 7**0.5)
    other = network(4, 8, True)
    other.vector.fill_(9.0)
    torch.save(module.state_dict(), tmp_path / "model.pt")
    load_weights(other.module, tmp_path / "model.pt", "cnn-small")
    assert torch.equal(other.module.state_dict()["3.of_weights.step"], step)


def test_the_factors_of_low_rank_layers_are_quantised_too() -> None:
    settings = {"dataset": "fashion-mnist-mini", "lowrank-layers": "full", "weight-bits": 4}
    few = few_bits_layers(Experiment(Config.from_mapping(settings)).network(seed=0))
    assert {"3.down.weight", "3.up.weight", "7.down.weight", "7.up.weight"} == set(few)


def test_weights_that_are_not_finite_are_refused_by_name() -> None:
    model = network(4, 0)
    weights = model.vector.clone()
    weights[-1] = np.nan
    with pytest.raises(ValueError, match=r"'9\.bias' has NaN"):
        few_bits_payload(model, weights, compact_of(model, 1.0), round=1)


def test_a_model_without_a_layer_to_quantise_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"no convolution or linear layer is left"):
        Experiment(
            Config.from_mapping({"dataset": "shakespeare-mini", "model": "lstm-small", "weight-bits": 4})
        ).network(seed=0)
