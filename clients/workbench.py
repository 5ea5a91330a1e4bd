"""The experiment that all clients of a thread share, with the layouts and codecs of each topology."""

import threading
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from fedsparse.compression import UpdateCodec, decode
from fedsparse.config import Config
from fedsparse.config.presets import FINE_VALUES
from fedsparse.device import release_freed
from fedsparse.experiment import Experiment
from fedsparse.models.speed import recompute
from fedsparse.quantisation.spread import spread_weights
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import Topology
from fedsparse.sparsity.compact import Compact

# The weights of a payload are read in place, which saves a model's worth of memory; they are never written to.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


class SparseModel(NamedTuple):
    """A topology with its layout and codecs; ``bits`` is ``np.packbits`` of the mask, empty when all weights exist."""

    bits: bytes
    topology: Topology
    compact: Compact
    codec: UpdateCodec
    whole_codec: UpdateCodec


def whole_codec(codec: UpdateCodec, settings: Mapping[str, Any]) -> UpdateCodec:
    """A codec that sends every weight in a fine value coding, and the residual too, in place of the lossy ``codec``.

    Args:
        settings: those that ``codec`` was made from.
    """
    values = settings["values"] if settings["values"] in FINE_VALUES else "f16"
    kept = {name: settings[name] for name in ("error_feedback", "residual_dtype", "residual_decay")}
    whole = UpdateCodec(codec.layout, "none", values=values, **kept)
    whole.feedback.is_on = codec.feedback.is_on  # on even in float32, because there is a residual to send
    return whole


class Workbench(Experiment):
    """The experiment that all clients of a thread share. The state of a client is in its Context or its file.

    Attributes:
        frozen_hash: of the frozen weights that ``model`` has; empty before the first.
        received: the global weights that ``model`` was last loaded with, float32, shape ``(layout.size,)``.
    """

    def __init__(self, config: Config, ranks: Sequence[int] = ()) -> None:
        super().__init__(config.replace(init=""), ranks)  # because the server's weights come with each message
        if config.recompute:
            recompute(self.model.module, config.recompute_segments)
        if config.compile:
            self.model.module.compile()
        self._payload, self.received, self.frozen_hash = b"", torch.empty(0), ""
        self.release()
        self.under_bits = lru_cache(maxsize=4)(self._under_bits)  # clients of a thread mostly share a topology

    def _under_bits(self, bits: bytes) -> SparseModel:
        topology = Topology.full(self.layers, self.layout.parameters)
        if bits:
            mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=self.layout.parameters)
            topology = Topology(self.layers, torch.from_numpy(mask.view(np.bool_)), part=bool(self.config.depths))
        compact = Compact(self.layout, topology := topology.to(self.device))
        settings = self.config.compression()
        codec = UpdateCodec(compact.layout, **settings)
        if self.config.secure_aggregation:  # whole numbers lose something even where float32 would not
            codec.feedback.is_on = settings["error_feedback"]
        return SparseModel(bits, topology, compact, codec, whole_codec(codec, settings))

    def under(self, topology: Topology) -> SparseModel:
        """The layout and codecs of a topology of this model; made once while the topology is in use."""
        mask = topology.mask.cpu().numpy()
        return self.under_bits(b"" if mask.all() else np.packbits(mask).tobytes())

    def receive(self, payload: bytes, compact: Compact) -> None:
        """Load global weights into ``model``; the payload is decoded once for all clients of a round."""
        if payload is not self._payload:
            update = decode(payload, compact.layout)
            self.load(compact.scatter(update).as_dense())
            if self.config.sends_few_bits:
                seed = derive_seed(self.config.seed, "spread", round=update.round)
                spread_weights(self.model, compact.topology, seed)
                self.received = self.model.vector.clone()
            self._payload = payload
        self.model.vector.copy_(self.received)

    def load(self, weights: np.ndarray) -> None:
        """Load global weights, float32 ``(layout.size,)``, into ``model``, and keep them as ``received``."""
        self._payload, self.received = b"", torch.from_numpy(weights).to(self.device)
        self.model.vector.copy_(self.received)

    def release(self) -> None:
        """Free the gradient, which is as large as the model, and return what training freed to the system."""
        self.model.module.zero_grad()
        release_freed(self.layout.size)


TRAINING = threading.Lock()
"""Held by the one thread that trains, because training draws from torch's random state, which threads share."""

_own = threading.local()


def workbench(settings: tuple[tuple[str, Any], ...], ranks: tuple[int, ...] = (), client: int = 0) -> Workbench:
    """This thread's workbench for a client, kept until a message brings other settings, or ranks of its network.

    Clients that hold the same network share it.
    """
    if getattr(_own, "made_of", None) != settings:
        _own.config, _own.benches = Config.from_mapping(dict(settings)), {}
        _own.made_of = settings
    name, benches = _own.config.model_of(client), _own.benches
    if name not in benches or benches[name][0] != ranks:
        with TRAINING:  # a new network draws its weights from torch's random state, too
            benches[name] = ranks, Workbench(_own.config.with_model(name), ranks)
    bench: Workbench = benches[name][1]
    return bench
