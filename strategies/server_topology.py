"""The server's side of a topology: who holds which mask, what replies add up to, and what exists in the next round.

A strategy asks it four things: what a message carries besides the weights, what a reply means, how replies add up, and,
when all have come, what the next topology is. A dense model is the topology in which everything exists: no mask ever
travels, and the short vector that payloads are about is the flat vector itself.
"""

from typing import NamedTuple

import torch
from flwr.app import ArrayRecord, RecordDict
from torch import Tensor

from fedsparse.aggregation.mean import MaskedMean, Models
from fedsparse.compression import PayloadError, SparseUpdate, decode
from fedsparse.config import Config
from fedsparse.engine.records import mask_array
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import Topology
from fedsparse.sparsity.compact import Compact
from fedsparse.sparsity.masks import decode_mask, encode_mask
from fedsparse.sparsity.method import Layers, RoundResult, TopologyMethod
from fedsparse.sparsity.readjust import Report, ReportSum
from fedsparse.sparsity.reports import decode_report
from fedsparse.vector import Layout

REMEMBERED = 8  # topologies from which a difference can be sent; a client that missed more gets the whole mask


class Upload(NamedTuple):
    """One client's reply, read.

    Attributes:
        update: in the coordinates of the flat vector.
        topology: of the client, in rounds in which clients choose; None for the server's.
        report: what it says about weights that do not exist.
    """

    update: SparseUpdate
    topology: Topology | None
    report: Report | None


class Replies:
    """A round's replies, added up one at a time.

    Args:
        layout: of the model.
        topology: of the server, which every client holds that has none of its own.
    """

    def __init__(self, layout: Layout, topology: Topology) -> None:
        self.mean = MaskedMean(layout.size, topology.mask)
        self.reports: ReportSum | None = None
        self._parameters = layout.parameters
        self._prunable = int(topology.prunable.count_nonzero())  # the sum of bools makes int64 of them
        self._wishes: Tensor | None = None  # how many clients wish for each weight
        self._wishing = 0

    def add(self, upload: Upload, samples: float) -> None:
        """Add a client's upload, weighted by its number of samples."""
        self.mean.add(upload.update, samples, upload.topology.mask if upload.topology else None)
        if upload.topology:
            self._wish(upload.topology.mask & upload.topology.prunable)
        if upload.report:
            self.reports = self.reports or ReportSum(self._parameters)
            self.reports.add(upload.report, samples)
            if upload.report.indices.numel() < self._prunable:  # to tell about everything is no wish
                self._wish(upload.report.indices)

    def _wish(self, weights: Tensor) -> None:
        """Note one client's wishes: positions, or a mask."""
        if self._wishes is None:
            self._wishes = torch.zeros(self._parameters, dtype=torch.int32)
        self._wishes[weights] += 1
        self._wishing += 1

    @property
    def samples(self) -> float:
        """Of all clients whose uploads were added."""
        return self.mean.samples

    @property
    def consensus(self) -> float | None:
        """Of the weights that a client wishes for, the share that another one wishes for too, over all pairs of them.

        Wishes are a client's mask where clients choose, or the few weights it reports. None when fewer than two wish.
        """
        if self._wishes is None or self._wishing < 2 or not self._wishes.any():
            return None
        wishes = self._wishes.double()
        return float((wishes * (wishes - 1)).sum() / wishes.sum() / (self._wishing - 1))


class ServerTopology:
    """The topology of a run.

    Args:
        config: the settings.
        layout: of the model.
        layers: its layers that have a place in a topology.
        method: decides.
        topology: of round 1, on the CPU.

    Attributes:
        topology: the present one.
        compact: its short vector; the layout of broadcasts and of most updates.
        metrics: what the last round measured, under telemetry's tags.
        details: the same for TensorBoard alone.
    """

    def __init__(
        self, config: Config, layout: Layout, layers: Layers, method: TopologyMethod, topology: Topology
    ) -> None:
        self.config, self.layout, self.layers, self.method = config, layout, layers, method
        full = Topology.full(layers, layout.parameters)
        self._recent = {full.hash: full}
        self._start = full.hash  # what a client holds that was never sent a mask
        self._held: dict[int, int | None] = {}  # partition id -> hash of what it holds; None when that is unknown
        self._masks: dict[int | None, ArrayRecord] = {}  # the present mask, by what it differs from
        self.metrics: dict[str, float] = {}
        self.details: dict[str, float] = {}
        self._set(topology)
        self._measure(topology, None)

    @classmethod
    def of_round_1(
        cls, config: Config, layout: Layout, layers: Layers, method: TopologyMethod, saliency: Tensor | None = None
    ) -> "ServerTopology":
        """What the method starts from; ``saliency`` as in ``TopologyMethod.initial``."""
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "topology"))
        return cls(config, layout, layers, method, method.initial(layers, layout.parameters, generator, saliency))

    def _set(self, topology: Topology) -> None:
        self.topology, self.compact = topology, Compact(self.layout, topology)
        self._recent[topology.hash] = topology
        self._masks = {}
        while len(self._recent) > REMEMBERED:
            del self._recent[next(iter(self._recent))]

    @property
    def name(self) -> dict[str, int | str]:
        """What every message says of the topology."""
        return {"topology": f"{self.topology.hash:016x}", "topology-version": self.topology.version}

    def mask_for(self, client: int) -> ArrayRecord | None:
        """The mask as ``client`` needs it; None when it holds the present topology.

        With a mask on its way, what it holds is unknown until it has answered: it may fail before or after keeping it.
        """
        held = self._held.get(client, self._start)
        if held == self.topology.hash:
            return None
        self._held[client] = None
        base = self._recent.get(held) if held is not None else None
        key = base.hash if base else None
        if key not in self._masks:
            self._masks[key] = ArrayRecord({"mask": mask_array(encode_mask(self.topology, base))})
        return self._masks[key]

    def answered(self, client: int) -> None:
        """``client`` has replied: it holds the present topology."""
        self._held[client] = self.topology.hash

    def forget(self, client: int) -> None:
        """``client`` has failed, perhaps for having lost what it held: it needs the whole mask."""
        self._held[client] = None

    def read(self, content: RecordDict, round: int) -> Upload:
        """What a client's arrays say.

        Raises:
            PayloadError: anything is wrong with them.
        """
        arrays = content.get("arrays")
        if not isinstance(arrays, ArrayRecord) or "update" not in arrays:
            raise PayloadError("it has no update")
        own, compact = self.topology if self._clients_choose(round) else None, self.compact
        if "mask" in arrays:
            if own is None:
                raise PayloadError("it has a mask of its own")
            own = decode_mask(arrays["mask"].data, self.layers, self.layout.parameters, self.topology)
            if not self.method.allows(self.topology, own):
                raise PayloadError(f"its mask has {own.counts} weights, which the method does not leave it")
            compact = Compact(self.layout, own)
        update = compact.scatter(decode(arrays["update"].data, compact.layout))
        if update.round != round:
            raise PayloadError(f"it was made in round {update.round}")
        report = None
        if "report" in arrays:
            if not (self.method.reports and self.method.is_readjustment(round)):
                raise PayloadError("it has a report that nobody asked for")
            report = decode_report(arrays["report"].data, self.layout, round)
        return Upload(update, own, report)

    def votes(self, round: int, replies: Replies, weights: Tensor) -> Models | None:
        """The clients' models, summed, where the next topology depends on them; ``weights`` are the round's first."""
        return replies.mean.models(weights) if self._clients_choose(round) else None

    def _clients_choose(self, round: int) -> bool:
        return self.method.clients_choose and self.method.is_readjustment(round)

    def finish(self, round: int, replies: Replies, votes: Models | None, weights: Tensor) -> Tensor | None:
        """Choose the next topology, and set what does not exist in it to 0.

        Args:
            weights: the aggregated ones, shape ``(layout.size,)``, changed in place.

        Returns:
            bool, shape ``(parameters,)``: the weights whose optimizer state means nothing any more; None for none.
        """
        old, stale = self.topology, None
        if self.method.is_readjustment(round):
            generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "topology", round=round))
            parameters = weights[: self.layout.parameters]
            new = self.method.decide(old, RoundResult(round, parameters, generator, replies.reports, votes))
            new.apply_(weights)
            stale = ~new.mask | ~old.mask
            if new is not old:
                self._set(new)
        self._measure(old, replies.consensus)
        return stale

    def _measure(self, old: Topology, consensus: float | None) -> None:
        new, share = self.topology, 0.0
        if new is not old:
            either = int(((old.mask | new.mask) & new.prunable).count_nonzero())
            share = int((old.mask ^ new.mask).count_nonzero()) / max(either, 1)
        self.metrics = {"topology/density": new.density, "topology/changed": share}
        pairs = zip(new.layers, new.counts, strict=True)
        self.details = {f"density/{layer.name}": count / layer.size for layer, count in pairs}
        if consensus is not None:
            self.details["topology/consensus"] = consensus
