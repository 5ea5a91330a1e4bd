"""What a client needs to work, made once a thread: the data on the device, the partition, the model, the codec."""

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression import UpdateCodec, decode
from fedsparse.config import Config
from fedsparse.config.presets import FINE_VALUES
from fedsparse.device import resolve_device
from fedsparse.models.speed import recompute_blocks
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import Topology
from fedsparse.sparsity.compact import Compact
from fedsparse.sparsity.setup import build_method, build_network, layers_of
from fedsparse.training.loop import Fetch
from fedsparse.vector import FlatModel
from partitions import augment, load_dataset, normalise, partition, split_holdout, to_device


class SparseModel(NamedTuple):
    """A topology and what a client needs to work under it; ``bits`` are ``np.packbits`` of its mask, empty for all."""

    bits: bytes
    topology: Topology
    compact: Compact
    codec: UpdateCodec
    whole_codec: UpdateCodec


def whole_codec(codec: UpdateCodec, settings: Mapping[str, Any]) -> UpdateCodec:
    """What sends every weight closely, residual included, whatever ``codec`` of these settings keeps back or rounds."""
    fine = settings["values"] if settings["values"] in FINE_VALUES else "f16"
    kept = {name: settings[name] for name in ("error_feedback", "residual_dtype", "residual_decay")}
    whole = UpdateCodec(codec.layout, "none", values=fine, **kept)
    whole.error_feedback = codec.error_feedback  # in float32 nothing is lost, but there is a residual to send
    return whole


class Workbench:
    """Shared by all the clients of a thread, its data by all threads. What belongs to one client is in the Context."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.device = resolve_device(config.device)
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # Triton launches on, and events belong to, the thread's present one
        self.data = to_device(load_dataset(config.dataset, config.data_dir), self.device)
        self.partition = partition(self.data.y_train.cpu(), **config.partitioning())
        network = build_network(config, self.data.input_shape, self.data.classes, derive_seed(config.seed, "model"))
        self.model = FlatModel(network.to(self.device))
        if config.recompute:
            recompute_blocks(network)
        if config.compile:
            network.compile()
        self.method = build_method(config)
        self.layers = layers_of(config, network, self.model.layout)
        self._payload, self.received = b"", self.model.vector.clone()
        self.under_bits = lru_cache(maxsize=4)(self._under_bits)  # clients of a process mostly share a topology

    def _under_bits(self, bits: bytes) -> SparseModel:
        topology = Topology.full(self.layers, self.model.layout.parameters)
        if bits:
            mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=self.model.layout.parameters)
            topology = Topology(self.layers, torch.from_numpy(mask.view(np.bool_)))
        compact = Compact(self.model.layout, topology := topology.to(self.device))
        settings = self.config.compression()
        codec = UpdateCodec(compact.layout, **settings)
        return SparseModel(bits, topology, compact, codec, whole_codec(codec, settings))

    def under(self, topology: Topology) -> SparseModel:
        """What is needed to work under a topology of this model."""
        mask = topology.mask.cpu().numpy()
        return self.under_bits(b"" if mask.all() else np.packbits(mask).tobytes())

    def receive(self, payload: bytes, compact: Compact) -> None:
        """Load global weights into ``model``; also kept, as ``received``: decoded once for all clients of a round."""
        if payload is not self._payload:
            self.load(compact.widen(decode(payload, compact.layout)).to_dense())
            self._payload = payload
        self.model.vector.copy_(self.received)

    def load(self, weights: np.ndarray) -> None:
        """Load global weights, float32 ``(layout.size,)``, into ``model`` and ``received``."""
        self._payload, self.received = b"", torch.from_numpy(weights).to(self.device)
        self.model.vector.copy_(self.received)

    def samples(self, partition_id: int) -> tuple[Tensor, Tensor]:
        """Indices of a client's training and held-out samples (int64, on the device)."""
        indices = self.partition[partition_id]
        held_out = np.empty(0, np.int64)
        if self.config.eval_clients:
            seed = derive_seed(self.config.seed, "holdout", partition_id=partition_id)
            indices, held_out = split_holdout(indices, self.config.holdout, seed)
        return torch.from_numpy(indices).to(self.device), torch.from_numpy(held_out).to(self.device)

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

    def fetch_test(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """A batch of the pooled test set."""
        data = self.data
        return normalise(data.x_test[positions], data.mean, data.std), data.y_test[positions]

    def fetch_together(self, indices: Sequence[Tensor]) -> Fetch:
        """Batches of several clients: int64 positions ``(c, b)`` in the samples of the first ``c`` of them."""
        joined, sizes = torch.cat(list(indices)), torch.tensor([len(i) for i in indices], device=self.device)
        starts, fetch = (sizes.cumsum(0) - sizes).unsqueeze(1), self.fetch(joined)

        def batch(positions: Tensor) -> tuple[Tensor, Tensor]:
            images, labels = fetch((positions + starts[: len(positions)]).flatten())
            return images.unflatten(0, positions.shape), labels.view(positions.shape)

        return batch


TRAINING = threading.Lock()
"""Held by the one thread that trains. Training draws from torch's random state, which is the whole process's."""

_own = threading.local()


def workbench(settings: tuple[tuple[str, Any], ...]) -> Workbench:
    """This thread's workbench for the items of a message's settings; its last one is kept, and validated once."""
    if getattr(_own, "settings", None) != settings:
        with TRAINING:  # that random state gives a new network its weights, too
            _own.bench = Workbench(Config.from_mapping(dict(settings)))
        _own.settings = settings
    bench: Workbench = _own.bench
    return bench
