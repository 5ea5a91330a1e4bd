"""From a Config to all that follows from it: data, partition, task, network, layout, layers, topology method.

The server, every client and every command make these here, so that they are the same for all of them. Each is made when
it is first asked for: a command that only splits the data builds no network.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fedsparse.catalogue import DATASETS, PARTITIONERS, TOPOLOGIES
from fedsparse.compression import UpdateCodec
from fedsparse.config import OWN, Config
from fedsparse.device import resolve_device
from fedsparse.errors import ConfigError, PluginError
from fedsparse.models import build_model
from fedsparse.plugins import blamed, is_own, load, named
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import Layer, TopologyMethod, weight_layers
from fedsparse.sparsity.small_dense import width_for
from fedsparse.sparsity.static import Dense
from fedsparse.sparsity.upload_pruning import UploadPruning
from fedsparse.tasks import TASKS, Task
from fedsparse.training.batchnorm import check_batches
from fedsparse.training.loop import Fetch, local_optimizer
from fedsparse.vector import FlatModel, Layout
from partitions import (
    DataError,
    Dataset,
    Partition,
    as_dataset,
    augment,
    holdout_size,
    load_folder,
    load_npz,
    normalise,
    split_holdout,
    to_device,
)
from partitions import partition as split
from partitions.partition_file import owners_from

CALIBRATION_BATCH = 128
Training = Literal["federated", "central", "none"]
"""What a command trains: clients with samples of their own, one model on all samples, or nothing."""
MEMBERS = {"strategy": ("step", "forget", "state_dict", "load_state_dict"), "aggregator": ("add", "result")}
"""What a user's own must have at least."""


@lru_cache(maxsize=4)
def load_dataset(name: str = "fashion-mnist-mini", data_dir: str = "data") -> Dataset:
    """A data set, read once a process.

    Args:
        name: in ``catalogue.DATASETS``, the path of an .npz file or of a folder of images, or a reference to the user's
            own: a function that is called with ``data_dir``, a Path, and returns what ``partitions.as_dataset`` takes.
        data_dir: where data sets are kept.

    Raises:
        ConfigError: it cannot be had, or is not as it should be, or the user's own function fails.
    """
    with blamed("dataset", name), data_errors():
        if name.endswith(".npz"):
            return load_npz(Path(name).expanduser())
        if "/" in name and not is_own(name):
            return load_folder(Path(name).expanduser())
        return as_dataset(named(DATASETS, name)(Path(data_dir).expanduser()), name)


@lru_cache(maxsize=4)
def partition_of(
    dataset: str, data_dir: str, distribution: str, clients: int, seed: int, beta: float, classes_per_client: int,
    min_samples: int,
) -> Partition:  # fmt: skip
    """Who holds which samples of a data set; the same arguments always give the same partition.

    Args:
        distribution: in ``catalogue.PARTITIONERS``, the path of a .csv file that ``main.py partition`` wrote, or a
            reference to the user's own function (see ``partitions.partition``).

    Raises:
        ConfigError: these samples cannot be split so.
    """
    data = load_dataset(dataset, data_dir)
    with blamed("distribution", distribution), data_errors():
        is_file = distribution.endswith(".csv")
        owners = owners_from(Path(distribution)) if is_file else named(PARTITIONERS, distribution)
        return split(
            data.y_train,
            owners,
            clients,
            seed=seed,
            name=distribution,
            min_samples=min_samples,
            natural=data.owners,
            beta=beta,
            classes_per_client=classes_per_client,
        )


@contextmanager
def data_errors() -> Iterator[None]:
    """Turn errors of ``partitions``, which knows nothing of ours, into ConfigErrors."""
    try:
        yield
    except DataError as error:
        raise ConfigError(str(error)) from None


class Experiment:
    """A Config, and what follows from it. Not shared by threads: each that trains needs a model of its own."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @cached_property
    def device(self) -> torch.device:
        """Where clients train; where there are several GPUs, it becomes the thread's present one."""
        device = resolve_device(self.config.device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # Triton launches on the present one, and events belong to it
        return device

    @cached_property
    def data(self) -> Dataset:
        """The data set, on the device."""
        return to_device(load_dataset(self.config.dataset, self.config.data_dir), self.device)

    @cached_property
    def partition(self) -> Partition:
        """Who holds which training samples."""
        return partition_of(self.config.dataset, self.config.data_dir, **self.config.partitioning())

    @cached_property
    def task(self) -> Task:
        """What the data set is for."""
        task = self.data.task
        return TASKS[task] if isinstance(task, str) else task

    @cached_property
    def model(self) -> FlatModel:
        """The network with its initial weights, on the device."""
        return FlatModel(self.network(derive_seed(self.config.seed, "model")).to(self.device))

    @property
    def layout(self) -> Layout:
        """What stands where in the model's vector."""
        return self.model.layout

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that have a place in a topology."""
        return weight_layers(self.model.module, self.layout, self.config.dense_layer_names())

    @cached_property
    def method(self) -> TopologyMethod:
        """How the weights that exist are chosen."""
        config = self.config
        if config.upload_pruning != "off":
            return UploadPruning(config.upload_sparsity, nm=config.n_of_m)
        with blamed("topology", config.topology_method):
            method: TopologyMethod = named(TOPOLOGIES, config.topology_method)(**config.readjustment())
            if not isinstance(method, TopologyMethod):
                raise PluginError(f"{config.topology_method}: should be a subclass of TopologyMethod")
        return method

    def network(self, seed: int) -> nn.Module:
        """The network on the CPU; narrower, so that it has as many weights as a sparse one, for ``small-dense``.

        Raises:
            ValueError: no network is narrow enough.
        """

        def build(width: float) -> nn.Module:
            with blamed("model", self.config.model):
                return build_model(
                    self.config.model, self.data.input_shape, self.data.classes, self.config.norm, seed, width
                )

        def parameters(width: float) -> int:
            with torch.device("meta"):
                return Layout.of(build(width)).parameters

        if self.config.topology_method != "small-dense" or not self.config.sparsity:
            return build(1.0)
        return build(width_for(parameters, round((1 - self.config.sparsity) * parameters(1.0))))

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
        return torch.arange(len(self.data.y_train), device=self.device)

    def training_sizes(self) -> list[int]:
        """How many samples each client trains on."""
        fraction = self.config.holdout if self.config.eval_clients else 0.0
        return [size - holdout_size(size, fraction) for size in self.partition.sizes.tolist()]

    def fetch(self, indices: Tensor, generator: torch.Generator | None = None) -> Fetch:
        """Batches of the samples ``indices``; augmented when there is a ``generator`` to draw from."""
        data = self.data

        def batch(positions: Tensor) -> tuple[Tensor, Tensor]:
            chosen = indices.index_select(0, positions)
            images = data.x_train.index_select(0, chosen)
            if generator is not None:
                images = augment(images, data.crop, data.flip, generator)
            return normalise(images, data.mean, data.std), data.y_train.index_select(0, chosen)

        return batch

    def fetch_together(self, indices: Sequence[Tensor]) -> Fetch:
        """Batches of several clients: int64 positions ``(c, b)`` in the samples of the first ``c`` of them."""
        joined, sizes = torch.cat(list(indices)), torch.tensor([len(i) for i in indices], device=self.device)
        starts, fetch = (sizes.cumsum(0) - sizes).unsqueeze(1), self.fetch(joined)

        def batch(positions: Tensor) -> tuple[Tensor, Tensor]:
            images, labels = fetch((positions + starts[: len(positions)]).flatten())
            return images.unflatten(0, positions.shape), labels.view(positions.shape)

        return batch

    def fetch_test(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """A batch of the pooled test set."""
        return normalise(self.data.x_test[positions], self.data.mean, self.data.std), self.data.y_test[positions]

    def calibration(self, indices: Tensor, samples: int, seed: int) -> list[Tensor]:
        """Inputs as the model sees them, not augmented: of at most ``samples`` of the training samples ``indices``."""
        order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))[:samples]
        chosen = indices[order.to(indices.device)]
        fetch = self.fetch(chosen)
        positions = torch.arange(len(chosen), device=chosen.device)
        return [fetch(part)[0] for part in positions.split(CALIBRATION_BATCH)]

    def check(self, training: Training = "federated") -> "Experiment":
        """Find out before a run what could stop it at once; returns this experiment.

        Args:
            training: what is to come. Only a federation splits the samples over clients.

        Raises:
            ConfigError: data or a device that are not there, samples that cannot be split so, a model that does not fit
                the data, a sparsity that cannot be met, or something of the user's own that is not as it should be.
        """
        config = self.config
        flat: dict[str, Any] = config.flat()
        for key in OWN:
            if is_own(flat[key]):
                with blamed(key, flat[key]):
                    thing = load(flat[key])
                    if missing := [name for name in MEMBERS.get(key, ()) if not hasattr(thing, name)]:
                        raise PluginError(f"{flat[key]}: should have {', '.join(missing)}")
        _ = self.device
        sizes = self.training_sizes() if training == "federated" else [len(self.data.y_train)]
        try:
            with torch.device("meta"):
                model = self.network(seed=0)
                layout = Layout.of(model)
                layers = weight_layers(model, layout, config.dense_layer_names())
                outputs = model.eval()(torch.empty(2, *self.data.input_shape))
                if training != "none":
                    check_batches(config, model, self.data.input_shape, sizes)
            if not isinstance(self.method, Dense | UploadPruning):
                self.method.counts(layers, config.sparsity)
            UpdateCodec(layout, **config.compression())
            UpdateCodec(layout, **config.downlink_compression())
            local_optimizer(config, [nn.Parameter(torch.zeros(1))], round=1)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(str(error)) from None
        except (RuntimeError, ZeroDivisionError) as error:
            raise ConfigError(self._misfit(error)) from None
        if is_own(config.model) and tuple(outputs.shape[:1]) != (2,):
            raise ConfigError(f"model = {config.model}: two images give an output of shape {tuple(outputs.shape)}")
        return self

    def _misfit(self, error: Exception) -> str:
        shape = "x".join(str(size) for size in self.data.input_shape)
        line = f"model = {self.config.model}: does not fit images of {shape} (channels, height, width)"
        return f"{line}: {error}".splitlines()[0] if is_own(self.config.model) else line
