"""Networks: shapes, sizes, norms, seeds."""

import pytest
import torch
from torch import nn

from fedsparse.catalogue import IMAGE_MODELS
from fedsparse.models import build_model


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_model_takes_every_image_and_learns(name: str, shape: tuple[int, int, int]) -> None:
    model = build_model(name, shape, 7, "group", seed=0)
    logits = model(torch.randn(2, *shape))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_outputs_are_logits_because_cross_entropy_normalises_them(name: str) -> None:
    outputs = build_model(name, (1, 28, 28), 10, "group", seed=0)(torch.randn(3, 1, 28, 28))
    assert outputs.min() < 0
    assert (outputs.exp().sum(1) - 1).abs().min() > 0.1


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_model_trains_on_a_single_image(name: str) -> None:
    build_model(name, (1, 28, 28), 10, "batch", seed=0).train()(torch.randn(1, 1, 28, 28)).sum().backward()


def test_the_cnn_has_the_papers_number_of_weights() -> None:
    assert sum(p.numel() for p in build_model("cnn", (1, 28, 28), 10, "batch", 0).parameters()) == 1_663_370


def test_resnet18_keeps_the_resolution_of_small_images() -> None:
    model = build_model("resnet18", (3, 32, 32), 10, "batch", 0)
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    assert model.layer1(model.maxpool(model.conv1(torch.zeros(1, 3, 32, 32)))).shape == (1, 64, 32, 32)


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "mobilenet_v2"])
def test_group_norm_leaves_no_running_statistics(name: str) -> None:
    model = build_model(name, (3, 32, 32), 10, "group", 0)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert not list(model.buffers())
    assert any(isinstance(m, nn.BatchNorm2d) for m in build_model(name, (3, 32, 32), 10, "batch", 0).modules())


def test_weights_follow_from_the_seed_and_nothing_else() -> None:
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    first = build_model("lenet5", (1, 28, 28), 10, "batch", 5)
    assert torch.equal(torch.rand(1), expected), "the global random state is left alone"
    second = build_model("lenet5", (1, 28, 28), 10, "batch", 5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
