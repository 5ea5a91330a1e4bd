"""The networks of a Config: the full one, and the one that is trained, with what the settings make of its layers."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from fedsparse.config import Config
from fedsparse.data import load_dataset
from fedsparse.errors import ConfigError
from fedsparse.lowrank import factor_, merge_others, smaller_rank
from fedsparse.lowrank.factorable_layers import Dense, factorable
from fedsparse.lowrank.lora import adapt_
from fedsparse.models import build_model, model_for
from fedsparse.models.exits import with_exits
from fedsparse.models.initial import load_weights
from fedsparse.partitions import Dataset
from fedsparse.plugins import blamed
from fedsparse.quantisation import few_bits
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import weight_layers
from fedsparse.sparsity.small_dense import width_for
from fedsparse.vector import Layout


class Networks:
    """The networks of a Config.

    The trained network may be narrower than the full one, or have intermediate classifiers, layers of low rank,
    adapters, or weights of few bits.

    Args:
        config: the settings.
        ranks: of the network's low-rank layers; empty for those that the settings begin with.
        lost: what ``rank_of_energy`` says of each of these layers; empty for 0.
    """

    def __init__(self, config: Config, ranks: Sequence[int] = (), lost: Sequence[float] = ()) -> None:
        self.config, self._ranks, self.lost = config, tuple(ranks), tuple(lost)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set on the CPU."""
        return load_dataset(*self.config.loading())

    @property
    def model_name(self) -> str:
        """The name of the model, with ``auto`` replaced by the usual one for the data set."""
        return model_for(self.config.models[0], self.dataset.kind)

    def load_initial(self, network: nn.Module) -> None:
        """Load the weights that ``init`` names, if it does, in place; on the meta device they are only checked.

        Raises:
            ConfigError: see ``load_weights``.
        """
        if self.config.init:
            vocabulary = self.dataset.vocabulary
            load_weights(network, Path(self.config.init), self.model_name, "init", vocabulary, merge_others)

    def network(self, seed: int) -> nn.Module:
        """The network on the CPU, with the low-rank and quantised layers of the settings. For ``small-dense`` it is so
        narrow that it has as many weights as a sparse network.

        Raises:
            ConfigError: even the narrowest network has more weights, or no layer can be factored.
        """

        def parameters(width: float) -> int:
            with torch.device("meta"):
                return Layout.of(self._network(seed, width)).parameters

        if not self._is_narrow:
            return self._quantised(self._factored(self._network(seed, width=1.0), seed))
        width = width_for(parameters, round((1 - self.config.sparsity) * parameters(1.0)))
        return self._quantised(self._network(seed, width))

    @property
    def _is_narrow(self) -> bool:
        return self.config.topology_method == "small-dense" and self.config.sparsity > 0

    def _network(self, seed: int, width: float) -> nn.Module:
        config, shape, classes = self.config, self.dataset.input_shape, self.dataset.classes
        with blamed("model", self.model_name):
            network = build_model(self.model_name, shape, classes, config.norm, seed, width)
        if not config.exits:
            return network
        try:
            return with_exits(network, config.exits, shape, classes, derive_seed(seed, "model"))
        except ValueError as error:
            raise ConfigError(f"exits = {config.exits}: model = {self.model_name} {error}") from None

    @cached_property
    def factorable(self) -> dict[str, Dense]:
        """The layers of the full network, on the meta device, that low-rank layers may replace."""
        with torch.device("meta"):
            network = self._network(seed=0, width=1.0)
        try:
            layers = weight_layers(network, Layout.of(network), self.config.dense_layer_names())
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return factorable(network, [layer.name.removesuffix(".weight") for layer in layers if layer.dense])

    @cached_property
    def asked_ranks(self) -> tuple[int, ...]:
        """The ranks of the ``factorable`` layers that the settings ask for, from the start or from the switch on.

        Raises:
            ConfigError: all are 0.
        """
        config = self.config
        least = config.lowrank_min_size if config.lowrank_layers == "selective" else 0
        ranks = tuple(
            smaller_rank(config.lowrank_form, layer, config.lowrank_rank) if layer.weight.numel() >= least else 0
            for layer in self.factorable.values()
        )
        if not any(ranks):
            limit = f"lowrank-min-size = {least}, " * (config.lowrank_layers == "selective")
            raise ConfigError(
                f"lowrank-layers = {config.lowrank_layers}: no layer of model = {self.model_name} becomes smaller; "
                f"there are {limit}dense-layers = {config.dense_layers} and lowrank-rank = {config.lowrank_rank:g}"
            )
        return ranks

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of the ``factorable`` layers of this network."""
        return self._ranks or tuple(rank * (not self.config.lowrank_switches) for rank in self.asked_ranks)

    def _factored(self, network: nn.Module, seed: int) -> nn.Module:
        """The network with its low-rank layers or adapters, in place."""
        config = self.config
        if config.lora_rank:
            patterns, rank, alpha = config.lora_patterns(), config.lora_rank, config.lora_alpha
            try:
                return adapt_(network, patterns, rank, alpha, seed, freeze_down=config.lora_freeze_a)
            except ValueError as error:
                raise ConfigError(str(error)) from None
        if config.lowrank_layers == "off":
            return network
        return factor_(network, dict(zip(self.factorable, self.ranks, strict=True)), config.lowrank_form, seed)

    def _quantised(self, network: nn.Module) -> nn.Module:
        """The network with the few bits of the settings, in place."""
        config = self.config
        if any(config.bits):
            try:
                few_bits(network, *config.bits, config.weight_steps == "learned", config.float_layer_names())
            except ValueError as error:
                raise ConfigError(f"{error} (model = {self.model_name})") from None
        return network
