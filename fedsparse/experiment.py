"""A Config, and what is made from it: data, partition, task, network, layout, layers, topology method.

The server, every client and every command make these here, so that they agree. Each is made at its first use, so that a
command that only splits the data builds no network.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fedsparse.catalogue import TOPOLOGIES
from fedsparse.config import Config
from fedsparse.data import load_dataset, partition_of, set_apart
from fedsparse.device import resolve_device
from fedsparse.errors import ConfigError, PluginError
from fedsparse.lowrank import factor_, ranks_in, smaller_rank
from fedsparse.lowrank.factorable_layers import Dense, factorable
from fedsparse.lowrank.frozen import Frozen
from fedsparse.lowrank.lora import adapt_
from fedsparse.models import build_model, model_for
from fedsparse.models.exits import with_exits
from fedsparse.models.initial import load_weights
from fedsparse.partitions import Dataset, Partition, holdout_size, split_holdout
from fedsparse.plugins import blamed, call, named
from fedsparse.privacy.fixed_sum import FixedSum
from fedsparse.quantisation import few_bits
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import Layer, Topology, TopologyMethod, weight_layers
from fedsparse.sparsity.depths import depth_of, part_of
from fedsparse.sparsity.small_dense import width_for
from fedsparse.sparsity.upload_pruning import UploadPruning
from fedsparse.tasks import TASKS, Task
from fedsparse.training.loop import Fetch
from fedsparse.vector import FlatModel, Layout

CALIBRATION_BATCH = 128


class Experiment:
    """A Config, and what is made from it. Each thread that trains needs an Experiment of its own, for its model.

    Args:
        config: the settings.
        ranks: of the network's low-rank layers; empty for those that the settings begin with.
        lost: what ``rank_of_energy`` says of each of these layers; empty for 0.
    """

    def __init__(self, config: Config, ranks: Sequence[int] = (), lost: Sequence[float] = ()) -> None:
        self.config, self._ranks, self.lost = config, tuple(ranks), tuple(lost)

    @cached_property
    def device(self) -> torch.device:
        """The device on which clients train; a GPU with an index becomes the thread's current one."""
        device = resolve_device(self.config.device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # Triton kernels and CUDA events use the thread's current GPU
        return device

    @cached_property
    def dataset(self) -> Dataset:
        """The data set on the CPU."""
        return load_dataset(*self.config.loading())

    @cached_property
    def data(self) -> Dataset:
        """The data set, on the device."""
        return self.dataset.to(self.device)

    @cached_property
    def partition(self) -> Partition:
        """The training samples of every client."""
        return partition_of(self.config.loading(), **self.config.partitioning())

    @cached_property
    def task(self) -> Task:
        """The loss and the metrics of the data set."""
        task = self.dataset.task
        if isinstance(task, str) and task not in TASKS:
            raise ConfigError(f"dataset = {self.config.dataset}: its task is {task!r}; there is {', '.join(TASKS)}")
        return TASKS[task](self.dataset) if isinstance(task, str) else task

    @property
    def model_name(self) -> str:
        """The name of the model, with ``auto`` replaced by the usual one for the data set."""
        return model_for(self.config.model, self.dataset.kind)

    @cached_property
    def model(self) -> FlatModel:
        """The network with its initial weights, on the device."""
        network = self.network(derive_seed(self.config.seed, "model"))
        self.load_initial(network)
        return FlatModel(network.to(self.device))

    def load_initial(self, network: nn.Module) -> None:
        """Load the weights that ``init`` names, if it does, in place; on the meta device they are only checked.

        Raises:
            ConfigError: see ``load_weights``.
        """
        if self.config.init:
            load_weights(network, Path(self.config.init), self.model_name, vocabulary=self.dataset.vocabulary)

    @cached_property
    def frozen(self) -> Frozen:
        """The weights of the model that are not trained."""
        return Frozen(self.model.module)

    @property
    def layout(self) -> Layout:
        """The layout of the model's vector."""
        return self.model.layout

    @cached_property
    def dense_layout(self) -> Layout:
        """The layout of the full model, with which what travels is compared; the model itself may be smaller."""
        if not (self._is_narrow or self.config.lowrank_layers != "off" or self.config.lora_rank):
            return self.layout
        with torch.device("meta"):
            return Layout.of(self._network(seed=0, width=1.0))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The weight layers, which a topology describes."""
        return weight_layers(self.model.module, self.layout, self.config.dense_layer_names())

    @cached_property
    def method(self) -> TopologyMethod:
        """The method that chooses the weights that exist."""
        config = self.config
        if config.upload_pruning != "off":
            return UploadPruning(config.upload_sparsity, nm=config.n_of_m)
        with blamed("topology", config.topology_method):
            method: TopologyMethod = call(named(TOPOLOGIES, config.topology_method), **config.readjustment())
            if not isinstance(method, TopologyMethod):
                raise PluginError(f"{config.topology_method}: should be a subclass of TopologyMethod")
        return method

    @cached_property
    def fixed_sum(self) -> FixedSum:
        """The whole numbers that clients send for secure aggregation."""
        config, most = self.config, int(self.partition.sizes.max())
        return FixedSum(config.secure_limit, config.secure_bits, config.clients_per_round, most)

    @cached_property
    def attackers(self) -> set[int]:
        """The partition ids of the hostile clients of an experiment with an ``attack``, the same in all rounds."""
        if self.config.attack == "none":
            return set()
        rng = np.random.default_rng(derive_seed(self.config.seed, "attack"))
        count = int(self.config.attackers * self.config.clients + 0.5)
        return set(rng.choice(self.config.clients, count, replace=False).tolist())

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
        with blamed("model", config.model):
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
            raise ConfigError(
                f"lowrank-layers = {config.lowrank_layers}: no layer of model = {self.model_name} becomes smaller; "
                f"there are dense-layers = {config.dense_layers} and lowrank-rank = {config.lowrank_rank:g}"
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

    def shaped_as(self, state: Mapping[str, Tensor]) -> "Experiment":
        """The experiment whose network has the ranks of a trained one's state dict, and does not switch any more."""
        if not self.config.lowrank_switches:
            return self
        return Experiment(self.config.replace(lowrank_layers="full"), ranks_in(state, self.factorable))

    def _quantised(self, network: nn.Module) -> nn.Module:
        """The network with the few bits of the settings, in place."""
        config = self.config
        if any(config.bits):
            try:
                few_bits(network, *config.bits, config.weight_steps == "learned", config.float_layer_names())
            except ValueError as error:
                raise ConfigError(str(error)) from None
        return network

    def samples(self, partition_id: int) -> tuple[Tensor, Tensor]:
        """Indices of a client's training and held-out samples (int64, on the device)."""
        indices = self.partition[partition_id]
        held_out = np.empty(0, np.int64)
        if self.config.eval_clients:
            seed = derive_seed(self.config.seed, "holdout", partition_id=partition_id)
            indices, held_out = split_holdout(indices, self.config.holdout, seed)
        return torch.from_numpy(indices).to(self.device), torch.from_numpy(held_out).to(self.device)

    @cached_property
    def all_samples(self) -> Tensor:
        """Indices of all training samples (int64, on the device)."""
        return torch.arange(self.data.train_size, device=self.device)

    @cached_property
    def set_apart(self) -> Tensor:
        """Indices of the training samples that no client holds (int64, on the device)."""
        split = self.config.partitioning()
        return torch.from_numpy(set_apart(self.dataset.train_size, split["apart"], split["seed"])).to(self.device)

    def depth(self, client: int) -> int:
        """How many classifiers a client trains."""
        config, most = self.config, self.config.exits + 1
        return depth_of(client, config.depths, most, config.seed) if config.depths else most

    def part(self, client: int) -> Topology | None:
        """The weights that a client trains; None when it trains all."""
        depth = self.depth(client)
        return part_of(self.layout, depth) if depth <= self.config.exits else None

    def training_sizes(self) -> list[int]:
        """How many samples each client trains on."""
        fraction = self.config.holdout if self.config.eval_clients else 0.0
        return [size - holdout_size(size, fraction) for size in self.partition.sizes.tolist()]

    def fetch(self, indices: Tensor, generator: torch.Generator | None = None) -> Fetch:
        """A function that makes batches of the samples ``indices``, augmented if there is a ``generator``."""
        return self.data.fetch(indices, generator)

    def fetch_together(self, indices: Sequence[Tensor]) -> Fetch:
        """A function that makes batches of the first ``c`` clients from int64 positions ``(c, b)`` in their samples."""
        joined, sizes = torch.cat(list(indices)), torch.tensor([len(i) for i in indices], device=self.device)
        starts, fetch = (sizes.cumsum(0) - sizes).unsqueeze(1), self.fetch(joined)

        def batch(positions: Tensor) -> tuple[Tensor, Tensor]:
            inputs, targets = fetch((positions + starts[: len(positions)]).flatten())
            return inputs.unflatten(0, positions.shape), targets.unflatten(0, positions.shape)

        return batch

    def fetch_test(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """A batch of the pooled test set."""
        return self.data.test_batch(positions)

    def calibration(self, indices: Tensor, samples: int, seed: int) -> list[Tensor]:
        """Inputs, not augmented, of at most ``samples`` random ones of the training samples ``indices``."""
        order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))[:samples]
        chosen = indices[order.to(indices.device)]
        fetch = self.fetch(chosen)
        positions = torch.arange(len(chosen), device=chosen.device)
        return [fetch(part)[0] for part in positions.split(CALIBRATION_BATCH)]
