"""Your own network.

    python main.py --model examples/own_model.py:TinyResNet --norm group

The class is called with the shape of an image (channels, height, width) and the number of classes, and with ``norm``
because its signature has ``norm``. Small models without BatchNorm, such as this one, can also train stacked:
--cohort-batching on.
"""

from torch import Tensor, nn


def normalisation(norm: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(4, channels)


class Block(nn.Module):
    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), normalisation(norm, channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1), normalisation(norm, channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.inside(x)).relu()


class TinyResNet(nn.Sequential):
    def __init__(self, input_shape: tuple[int, int, int], classes: int, norm: str = "group") -> None:
        stem = nn.Conv2d(input_shape[0], 16, 3, stride=2, padding=1)
        head = [nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9 * 16, classes)]
        super().__init__(stem, Block(16, norm), Block(16, norm), *head)
