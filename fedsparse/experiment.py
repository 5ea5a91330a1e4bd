"""A Config, and what is made from it: data, partition, task, network, layout, layers, topology method.

The server, every client and every command make these here, so that they agree. Each is made at its first use, so that a
command that only splits the data builds no network.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fedsparse.catalogue import TOPOLOGIES
from fedsparse.data import check_alike, load_dataset, partition_of, set_apart
from fedsparse.device import resolve_device
from fedsparse.errors import ConfigError, PluginError
from fedsparse.lowrank import ranks_in
from fedsparse.lowrank.frozen import Frozen
from fedsparse.networks import Networks
from fedsparse.partitions import Dataset, Partition, holdout_size, split_holdout
from fedsparse.plugins import blamed, call, named
from fedsparse.privacy.fixed_sum import FixedSum
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import Layer, TopologyMethod, weight_layers
from fedsparse.sparsity.compact import Compact
from fedsparse.sparsity.depths import depth_of, part_of
from fedsparse.sparsity.upload_pruning import UploadPruning
from fedsparse.tasks import TASKS, Task
from fedsparse.training.evaluation import Fetch
from fedsparse.vector import FlatModel, Layout

CALIBRATION_BATCH = 128


class Experiment(Networks):
    """A Config, and what is made from it. Each thread that trains needs an Experiment of its own, for its model.

    Args:
        config, ranks, lost: as for :class:`Networks`.
    """

    @cached_property
    def device(self) -> torch.device:
        """The device on which clients train; a GPU with an index becomes the thread's current one."""
        device = resolve_device(self.config.device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # Triton kernels and CUDA events use the thread's current GPU
        return device

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

    @cached_property
    def model(self) -> FlatModel:
        """The network with its initial weights, on the device."""
        network = self.network(derive_seed(self.config.seed, "model"))
        self.load_initial(network)
        return FlatModel(network.to(self.device))

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

    def shaped_as(self, state: Mapping[str, Tensor]) -> "Experiment":
        """The experiment whose network has the ranks of a trained one's state dict, and does not switch any more."""
        if not self.config.lowrank_switches:
            return self
        return Experiment(self.config.replace(lowrank_layers="full"), ranks_in(state, self.factorable))

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

    @cached_property
    def distill_data(self) -> Dataset | None:
        """Another data set than the clients', from which the server distils, on the CPU; None where it has none.

        Raises:
            ConfigError: it cannot be read, or has too few samples or samples of another kind.
        """
        name, count, (_, *settings) = self.config.distill_data, self.config.distill_samples, self.config.loading()
        if self.config.distill != "ensemble" or self.config.sets_apart:
            return None
        other, says = load_dataset(name, *settings, setting="distill-data"), f"distill-data = {name}"
        check_alike(other, self.dataset, says)
        if count > other.train_size:
            raise ConfigError(f"distill-samples = {count}: {says} has only {other.train_size} training samples")
        return other

    @cached_property
    def unlabelled(self) -> tuple[Fetch, int]:
        """A function that makes batches of the server's own samples, and how many samples these are."""
        other, count, seed = self.distill_data, self.config.distill_samples, derive_seed(self.config.seed, "distill")
        if other is None:
            return self.fetch(self.set_apart), len(self.set_apart)
        chosen = torch.from_numpy(set_apart(other.train_size, count, seed)).to(self.device)
        return other.to(self.device).fetch(chosen), count

    def depth(self, client: int) -> int:
        """How many classifiers a client trains."""
        config, most = self.config, self.config.exits + 1
        return depth_of(client, config.depths, most, config.seed) if config.depths else most

    @cached_property
    def participants(self) -> Sequence[int]:
        """The clients that take part: all, or those that are deep enough."""
        clients, least = range(self.config.clients), self.config.least_depth
        return clients if least == 1 else [client for client in clients if self.depth(client) >= least]

    @cached_property
    def _parts(self) -> list[Compact]:
        """What clients of each depth train, from depth 1, but for those that train all."""
        return [Compact(self.layout, part_of(self.layout, depth)) for depth in range(1, self.config.exits + 1)]

    def part(self, client: int) -> Compact | None:
        """The weights that a client downloads and trains; None when these are all."""
        depth = self.depth(client)
        return self._parts[depth - 1] if depth <= self.config.exits else None

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
