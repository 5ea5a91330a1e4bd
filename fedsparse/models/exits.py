"""A network with classifiers at intermediate layers, so that an easy sample needs only its first layers.

BranchyNet: Teerapittayanon, McDanel and Kung 2016, "BranchyNet: Fast Inference via Early Exiting from Deep Neural
Networks", section III. A classifier here is one linear layer on features that are averaged to at most 4x4 places.

Of a transformer for text, the classifiers share the output layer, as in CALM (Schuster et al. 2022, "Confident Adaptive
Language Modeling"); each has a normalisation of its own.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fedsparse.models.chain import chain_of, has_weights
from fedsparse.models.gpt2 import NextToken

PLACES = 4
"""Rows and columns of what a classifier sees of an image."""


class Stage(nn.Module):
    """Some layers of the network, and the classifier behind them; None in the last stage, which ends in scores."""

    def __init__(self, layers: nn.Sequential, classifier: nn.Module | None) -> None:
        super().__init__()
        self.layers, self.classifier = layers, classifier

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


class Exits(nn.Module):
    """The network. In eval mode it gives the scores of the deepest classifier that runs, shape ``(batch, classes)``.

    In training mode it gives those of each classifier that runs: shape ``(depth, batch, classes)``.

    Attributes:
        depth: how many stages run, each with its classifier.
    """

    def __init__(self, stages: list[Stage]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.depth = len(stages)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return torch.stack(self.every(x, self.depth))
        for stage in self.stages[: self.depth]:
            x = stage(x)
        classifier: Any = self.stages[self.depth - 1].classifier
        return x if classifier is None else classifier(x)

    def every(self, x: Tensor, depth: int) -> list[Tensor]:
        """The scores of the first ``depth`` classifiers."""
        scores = []
        for stage in self.stages[:depth]:
            x = stage(x)
            classifier: Any = stage.classifier
            scores.append(x if classifier is None else classifier(x))
        return scores


def stage_of(name: str) -> int:
    """The stage, from 0, that has the parameter of this name."""
    return int(name.split(".")[1])


@torch.no_grad()
def with_exits(network: nn.Module, count: int, input_shape: tuple[int, ...], classes: int, seed: int) -> Exits:
    """The network with ``count`` more classifiers, as far apart as its layers or blocks allow.

    Args:
        network: on the CPU or the meta device; its modules become those of the result.
        seed: of the classifiers' initial weights; torch's global random state does not change.

    Raises:
        ValueError: the network is no chain of layers, or too short a one.
    """
    chain = chain_of(network)
    starts = [place for place, module in enumerate(chain) if has_weights(module)]
    room = max(len(starts) - 2, 0)  # behind each layer but the last two, which a classifier would do again
    if count > room:
        raise ValueError(f"has room for {room}")
    behind = [-(-k * (len(starts) - 1) // (count + 1)) for k in range(1, count + 1)]
    ends = [starts[layers] for layers in behind] + [len(chain)]
    is_text = any(isinstance(part, nn.Embedding) for part in chain[0].modules())
    x, stages = torch.zeros(1, *input_shape, dtype=torch.int64 if is_text else None), list[Stage]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start, end in zip([0, *ends], ends, strict=False):
            layers = nn.Sequential(*chain[start:end])
            x = layers.eval()(x)
            stages.append(Stage(layers, _classifier(x, classes, chain[-1]) if end < len(chain) else None))
    return Exits(stages).train()


def _classifier(features: Tensor, classes: int, last: nn.Module) -> nn.Module:
    if isinstance(last, NextToken):
        return last.another()
    if features.dim() < 4:
        return nn.Linear(features.shape[-1], classes)
    height, width = (-(-side // PLACES) for side in features.shape[2:])
    seen = nn.Sequential(nn.AvgPool2d((height, width), ceil_mode=True), nn.Flatten())
    return seen.append(nn.Linear(seen(features).shape[1], classes))
