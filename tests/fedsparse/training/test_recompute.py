"""Recomputed activations: the same gradients, of less memory."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.recompute import peak
from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.models import build_model
from fedsparse.models.speed import recompute
from fedsparse.preflight import check

IMAGES, LABELS = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)


@pytest.mark.parametrize(
    ("name", "segments"),
    [
        ("cnn-small", 1),
        ("cnn-small", 99),
        ("resnet18", "auto"),
        ("resnet18", "blocks"),
        ("vgg11", 3),
        ("mobilenet_v2", 5),
    ],
)
def test_gradients_and_running_statistics_keep_their_bits(name: str, segments: int | str) -> None:
    found = []
    for recomputes in (False, True):
        model = build_model(name, (3, 32, 32), 10, "batch", seed=0, width=0.125)
        if recomputes:
            recompute(model, segments)
        torch.manual_seed(1)  # of dropout
        F.cross_entropy(model(IMAGES), LABELS).backward()
        found.append([p.grad for p in model.parameters()] + list(model.buffers()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_step_of_a_network_of_101_layers_takes_less_than_half_of_its_memory() -> None:
    whole, blocks, pieces = (peak(101, way, batch=32) for way in ("off", "blocks", "auto"))
    assert max(blocks, pieces) < 0.4 * whole


def test_a_network_that_is_no_chain_is_refused_in_one_line() -> None:
    settings = {
        "dataset": "shakespeare-mini",
        "model": "lstm",
        "recompute": True,
        "recompute-segments": "auto",
        "clients": 10,
    }
    with pytest.raises(ConfigError, match="model = lstm is not a chain of layers; use blocks"):
        check(Experiment(Config.from_mapping(settings)))


def test_a_piece_is_never_cut_before_an_operation_that_overwrites_its_input() -> None:
    layers = [nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)]
    model, plain = nn.Sequential(*layers), nn.Sequential(*layers)
    recompute(model, 3)
    x, gradients = torch.randn(5, 4), []
    for network in (plain, model):
        network.zero_grad()
        network(x).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
