"""What --recompute saves: the peak of activations and gradients in one training step, of ResNets of growing depth.

    python -m benchmarks.recompute [--batch 32] [--seconds]

Memory is exact and needs no device: the network stands on torch's meta device, and every storage that a step allocates
is counted while it lives. With --seconds, a step is timed on the CPU too.
"""

import argparse
import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.common import machine
from fedsparse.models.speed import recompute
from fedsparse.telemetry.timers import medians

DEPTHS = (18, 34, 50, 101, 152)
WAYS = {"off": "", "blocks": "blocks", "auto": "auto"}


class Peak(TorchDispatchMode):
    """The most bytes of tensors that lived at once, of those that were made while this is active."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most, self._known = 0, 0, set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {id(leaf.untyped_storage()) for leaf in tree_leaves(args) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and id(storage := leaf.untyped_storage()) not in known | self._known:
                self._known.add(id(storage))
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._forget, id(storage), storage.nbytes())
        return result

    def _forget(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.now -= size


def resnet(depth: int, way: str) -> nn.Module:
    """A ResNet for images of 32 pixels, as ``fedsparse.models.torchvision_models`` makes them."""
    from torchvision import models

    model: Any = getattr(models, f"resnet{depth}")(num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    if WAYS[way]:
        recompute(model, WAYS[way])
    return model


def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    F.cross_entropy(model(images), labels).backward()
    model.zero_grad()


def peak(depth: int, way: str, batch: int) -> int:
    with torch.device("meta"):
        model, images, labels = resnet(depth, way), torch.empty(batch, 3, 32, 32), torch.empty(batch, dtype=torch.int64)
        with Peak() as counted:
            step(model, images, labels)
    return counted.most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", action="store_true")
    asked = parser.parse_args()
    print(f"{machine()}\n\n| ResNet of {asked.batch} images | {' | '.join(WAYS)} |\n|---|{'---|' * len(WAYS)}")
    for depth in DEPTHS:
        cells = [f"{peak(depth, way, asked.batch) / 2**20:,.0f} MiB" for way in WAYS]
        if asked.seconds:
            models = {way: resnet(depth, way) for way in WAYS}
            data = torch.randn(asked.batch, 3, 32, 32), torch.zeros(asked.batch, dtype=torch.int64)
            timed = medians({way: partial(step, model, *data) for way, model in models.items()}, repeats=3)
            cells = [f"{cell}, {timed[way]:.1f} s" for cell, way in zip(cells, WAYS, strict=True)]
        print(f"| {depth} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
