"""From the settings to a network, its method, and the layers of its topology: the same on server and client."""

import torch
from torch import nn

from fedsparse.catalogue import TOPOLOGIES
from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.models import build_model
from fedsparse.plugins import named
from fedsparse.sparsity import TopologyMethod
from fedsparse.sparsity.small_dense import width_for
from fedsparse.sparsity.static import Dense
from fedsparse.sparsity.topology import Layer, weight_layers
from fedsparse.sparsity.upload_pruning import UploadPruning
from fedsparse.vector import Layout

Shape = tuple[int, int, int]


def build_network(config: Config, input_shape: Shape, classes: int, seed: int) -> nn.Module:
    """The network on the CPU; narrower, so that it has as many weights as a sparse one, for ``small-dense``.

    Raises:
        ValueError: no network is narrow enough.
    """

    def build(width: float) -> nn.Module:
        return build_model(config.model, input_shape, classes, config.norm, seed, width)

    def parameters(width: float) -> int:
        with torch.device("meta"):
            return Layout.of(build(width)).parameters

    if config.topology_method != "small-dense" or not config.sparsity:
        return build(1.0)
    return build(width_for(parameters, round((1 - config.sparsity) * parameters(1.0))))


def build_method(config: Config) -> TopologyMethod:
    """How weights are chosen, by the settings."""
    if config.upload_pruning != "off":
        return UploadPruning(config.upload_sparsity, nm=config.n_of_m)
    method: TopologyMethod = named(TOPOLOGIES, config.topology_method)(**config.readjustment())
    return method


def layers_of(config: Config, model: nn.Module, layout: Layout) -> tuple[Layer, ...]:
    """The layers of ``model`` that have a place in a topology.

    Raises:
        ValueError: ``dense-layers`` names a layer that does not exist.
    """
    return weight_layers(model, layout, config.dense_layer_names())


def check_sparsity(config: Config, input_shape: Shape, classes: int) -> None:
    """Find out before a run whether the model fits the images, and whether the sparsity can be met.

    Raises:
        ConfigError: it cannot; told in one line.
    """
    try:
        with torch.device("meta"):
            model = build_network(config, input_shape, classes, seed=0)
            layers = layers_of(config, model, Layout.of(model))
            model.eval()(torch.empty(1, *input_shape))
        method = build_method(config)
        if not isinstance(method, Dense):
            method.counts(layers, config.sparsity)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    except (RuntimeError, ZeroDivisionError):
        shape = "x".join(str(size) for size in input_shape)
        raise ConfigError(f"model = {config.model}: does not fit images of {shape} (channels, height, width)") from None
