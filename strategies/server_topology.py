"""The server's side of a topology: it sends masks, reads uploads, and chooses the weights that exist next.

A dense model is the topology in which every weight exists: no mask ever travels, and the short vector of ``Compact`` is
the flat vector itself.
"""

import numpy as np
import torch
from flwr.app import ArrayRecord, RecordDict
from torch import Tensor

from fedsparse.aggregation.mean import Votes
from fedsparse.checkpoint import State
from fedsparse.compression import PayloadError, SparseUpdate, decode
from fedsparse.engine.records import plain_array
from fedsparse.experiment import Experiment
from fedsparse.plugins import blamed
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import Topology
from fedsparse.sparsity.compact import Compact
from fedsparse.sparsity.masks import decode_mask, encode_mask
from fedsparse.sparsity.method import RoundResult, checked
from fedsparse.sparsity.readjust import Report
from fedsparse.sparsity.reports import decode_report
from fedsparse.strategies.replies import Replies

REMEMBERED = 8  # past topologies; a client that holds an older one gets the whole mask instead of a difference


class ServerTopology:
    """The topology of a run.

    Args:
        experiment: the settings, the model's layers and the topology's method.
        topology: the topology of round 1, on the CPU.

    Attributes:
        start: the hash of the full topology, which a client holds until it is sent a mask.
        current: the present topology.
        compact: its short vector, with the layout of broadcasts and of most updates.
        metrics: what the last round measured, under telemetry's tags.
        details: further measurements, for TensorBoard alone.
    """

    def __init__(self, experiment: Experiment, topology: Topology) -> None:
        self.experiment, self.method = experiment, experiment.method
        self.layout, self.layers = experiment.layout, experiment.layers
        full = Topology.full(self.layers, self.layout.parameters)
        self.start = full.hash
        self._recent = {full.hash: full}
        self._masks: dict[int | None, ArrayRecord] = {}  # hash of a topology -> the present mask's difference
        self.metrics: dict[str, float] = {}
        self.details: dict[str, float] = {}
        self._set(topology)
        self._measure(topology, None)

    @classmethod
    def of_round_1(cls, experiment: Experiment, saliency: Tensor | None = None) -> "ServerTopology":
        """The topology that the method starts from; ``saliency`` as in ``TopologyMethod.initial``."""
        generator = torch.Generator().manual_seed(derive_seed(experiment.config.seed, "topology"))
        layers, parameters = experiment.layers, experiment.layout.parameters
        with blamed("topology", experiment.config.topology_method):
            topology = checked(experiment.method.initial(layers, parameters, generator, saliency), layers, parameters)
        return cls(experiment, topology)

    def state_dict(self) -> State:
        """The present topology, the past ones that clients may hold, the method's memory, and what was measured."""
        masks = [np.packbits(topology.mask.numpy()) for topology in self._recent.values()]
        return {
            "current": list(self._recent).index(self.current.hash),
            "version": self.current.version,
            "recent": torch.from_numpy(np.stack(masks)),
            "method": self.method.state_dict(),
            "metrics": dict(self.metrics),
            "details": dict(self.details),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        size = self.layout.parameters
        masks = [np.unpackbits(bits, count=size).view(np.bool_) for bits in state["recent"].numpy()]
        recent = [Topology(self.layers, torch.from_numpy(mask), state["version"]) for mask in masks]
        self._recent = {topology.hash: topology for topology in recent}
        self._set(recent[state["current"]])
        self.method.load_state_dict(state["method"])
        self.metrics, self.details = state["metrics"], state["details"]

    def _set(self, topology: Topology) -> None:
        self.current, self.compact = topology, Compact(self.layout, topology)
        self._recent[topology.hash] = topology
        self._masks = {}
        while len(self._recent) > REMEMBERED:
            del self._recent[next(iter(self._recent))]

    @property
    def named(self) -> dict[str, int | str]:
        """The hash and the version of the present topology, as every message carries them."""
        return {"topology": f"{self.current.hash:016x}", "topology-version": self.current.version}

    def mask_for(self, held: int | None) -> ArrayRecord | None:
        """The present mask for a client that holds the topology of hash ``held``; None when that is the present one.

        Args:
            held: None when the server cannot know what the client holds.
        """
        if held == self.current.hash:
            return None
        base = self._recent.get(held) if held is not None else None
        key = base.hash if base else None
        if key not in self._masks:
            self._masks[key] = ArrayRecord({"mask": plain_array(encode_mask(self.current, base))})
        return self._masks[key]

    def read(
        self, content: RecordDict, round: int, bound: int, part: Compact | None = None
    ) -> tuple[SparseUpdate, Topology | None, Report | None]:
        """A client's update, its own topology where clients choose, and its report.

        Args:
            bound: the ``wire.binding`` of the client and the run.
            part: the weights that the client trains; None for all that exist.

        Raises:
            PayloadError: one line that says what is wrong with the upload.
        """
        arrays = content.get("arrays")
        if not isinstance(arrays, ArrayRecord) or "update" not in arrays:
            raise PayloadError("it has no update")
        if "masked" in arrays:
            raise PayloadError("it has a masked update that the server did not ask for")
        own, compact = self.current if self.clients_choose(round) else None, self.compact
        if part:
            own, compact = part.topology, part
        if "mask" in arrays:
            if own is None or part:
                raise PayloadError("it has a mask of its own")
            own = decode_mask(arrays["mask"].data, self.layers, self.layout.parameters, self.current)
            if not self.method.allows(self.current, own):
                raise PayloadError(f"its mask has {own.counts} weights, which the method does not leave it")
            compact = Compact(self.layout, own)
        update = compact.scatter(decode(arrays["update"].data, compact.layout, bound))
        if update.round != round:
            raise PayloadError(f"it was made in round {update.round}")
        report = None
        if "report" in arrays:
            if not (self.method.reports and self.method.is_readjustment(round)):
                raise PayloadError("it has a report that the server did not ask for")
            report = decode_report(arrays["report"].data, self.layout, round, bound)
        return update, own, report

    def clients_choose(self, round: int) -> bool:
        """Whether clients upload under masks of their own in this round, and the next topology depends on them."""
        return self.method.clients_choose and self.method.is_readjustment(round)

    def follow(self, round: int, replies: Replies, votes: Votes | None, weights: Tensor) -> Tensor | None:
        """Choose the next topology, and set the weights that do not exist in it to 0.

        Args:
            weights: the new global weights, shape ``(layout.size,)``, changed in place.

        Returns:
            The weights whose moments the server optimizer must reset, bool, shape ``(parameters,)``; None when the
            round readjusts nothing.
        """
        old, stale = self.current, None
        if self.method.is_readjustment(round):
            seed = derive_seed(self.experiment.config.seed, "topology", round=round)
            parameters = weights[: self.layout.parameters]
            result = RoundResult(round, parameters, torch.Generator().manual_seed(seed), replies.reports, votes)
            with blamed("topology", self.experiment.config.topology_method):
                new = checked(self.method.decide(old, result), self.layers, self.layout.parameters)
            new.apply_(weights)
            stale = ~new.mask | ~old.mask
            if new is not old:
                self._set(new)
        self._measure(old, replies.consensus)
        return stale

    def _measure(self, old: Topology, consensus: float | None) -> None:
        new, share = self.current, 0.0
        if new is not old:
            either = int(((old.mask | new.mask) & new.prunable).count_nonzero())
            share = int((old.mask ^ new.mask).count_nonzero()) / max(either, 1)
        self.metrics = {"topology/density": new.density, "topology/changed": share}
        pairs = zip(new.layers, new.counts, strict=True)
        self.details = {f"density/{layer.name}": count / layer.size for layer, count in pairs}
        if consensus is not None:
            self.details["topology/consensus"] = consensus
