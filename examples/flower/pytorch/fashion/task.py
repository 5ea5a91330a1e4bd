"""The network, its training, and the data: a subset of Fashion-MNIST that needs no download."""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedsparse.partitions.embedded import load
from fedsparse.partitions.images import Images


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip


@cache
def loaded() -> Images:
    """All images, read once a process."""
    return load(Path())


def data(partition: int, partitions: int, part: str = "train") -> tuple[Tensor, Tensor]:
    """This client's share of the images, (n, 1, 28, 28), and their labels."""
    images = loaded()
    x, y = (images.x_train, images.y_train) if part == "train" else (images.x_test, images.y_test)
    x, y = x[partition::partitions], y[partition::partitions]
    return (x.float() - images.mean[0]) / images.std[0], y


def train(net: nn.Module, x: Tensor, y: Tensor, epochs: int, lr: float) -> float:
    """Train with SGD; returns the mean loss."""
    optimizer, losses = torch.optim.SGD(net.parameters(), lr, momentum=0.9), []
    net.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(32):
            loss = F.cross_entropy(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def test(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """The accuracy."""
    net.eval()
    return (net(x).argmax(1) == y).float().mean().item()
