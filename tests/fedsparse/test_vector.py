"""The flat vector and its layout."""

import torch
from torch import nn

from fedsparse.models import build_model
from fedsparse.vector import FlatModel, Layout


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))


def test_parameters_come_first_then_float_buffers_and_integer_buffers_are_left_out() -> None:
    layout = Layout.of(small())
    names = [entry.name for entry in layout.entries]
    assert names == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "3.weight",
        "3.bias",
        "1.running_mean",
        "1.running_var",
    ]
    assert layout.size - layout.parameters == 8


def test_writing_the_vector_changes_the_module_and_training_changes_the_vector() -> None:
    model = FlatModel(small())
    model.vector.fill_(0.5)
    assert all((p == 0.5).all() for p in model.module.parameters())
    before = model.vector.clone()
    model.module.train()
    loss = model.module(torch.randn(8, 1, 28, 28)).square().mean()
    loss.backward()
    torch.optim.SGD(model.module.parameters(), lr=0.1).step()
    changed = model.vector != before
    assert changed[: model.layout.parameters].any()
    assert changed[model.layout.parameters :].any(), "BatchNorm's running statistics are views of the vector too"


def test_the_fingerprint_tells_models_apart_and_repeats() -> None:
    prints = [
        Layout.of(build_model(n, (1, 28, 28), 10, "batch", seed=s)).fingerprint
        for n in ("cnn", "lenet5")
        for s in (0, 1)
    ]
    assert prints[0] == prints[1]
    assert prints[2] == prints[3]
    assert prints[0] != prints[2]


def test_views_are_the_trainable_entries_of_any_vector() -> None:
    model = FlatModel(small())
    for view, parameter in zip(model.views(model.vector), model.module.parameters(), strict=True):
        assert torch.equal(view, parameter)
