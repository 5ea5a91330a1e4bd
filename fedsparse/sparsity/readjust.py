"""Readjustment: drop the smallest of the weights that exist, grow as many elsewhere.

Evci et al. 2020, "Rigging the Lottery" (section 3, algorithm 1); growth at random as in SET (Mocanu et al. 2018), by a
moving average of gradients as in sparse momentum (Dettmers and Zettlemoyer 2019).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsparse.sparsity.largest import largest_mask
from fedsparse.sparsity.topology import Topology


def cosine_fraction(round: int, end: int, ratio: float) -> float:
    """The share of a layer's weights to exchange: ``ratio`` at round 0, half midway, 0 from ``end`` on (eq. 1)."""
    return ratio / 2 * (1 + math.cos(math.pi * round / end)) if round < end else 0.0


def exchange_counts(topology: Topology, fraction: float) -> tuple[int, ...]:
    """``r`` of each layer: ``fraction`` of its active weights, but never more than it has inactive ones."""
    pairs = zip(topology.layers, topology.counts, strict=True)
    return tuple(min(round(fraction * active), layer.size - active) for layer, active in pairs)


def drop_and_grow(mask: Tensor, weights: Tensor, scores: Tensor, r: int) -> Tensor:
    """Exchange ``r`` weights of one layer.

    A weight that was just dropped may grow again, and then keeps its value.

    Args:
        mask: bool, shape ``(n,)``, with at least ``r`` True and ``r`` False.
        weights: shape ``(n,)``; the existing weights of the ``r`` smallest magnitudes are dropped.
        scores: shape ``(n,)``; after the drop, the missing weights of the ``r`` largest scores are grown.

    Returns:
        A new mask with as many True.
    """
    survivors = mask & ~largest_mask(-weights.abs(), mask, r)
    return survivors | largest_mask(scores, ~survivors, r)


def readjust(topology: Topology, weights: Tensor, scores: Tensor, fraction: float) -> Topology:
    """Exchange ``fraction`` of every layer's weights; each layer keeps its count.

    Args:
        weights: float, shape ``(parameters,)``.
        scores: float, shape ``(parameters,)``, such as gradient magnitudes; -inf where the score is not known. A layer
            exchanges at most as many weights as it has inactive ones with a known score.
        fraction: see ``cosine_fraction``; 0 returns ``topology`` itself.
    """
    mask = topology.mask.clone()
    for layer, r in zip(topology.layers, exchange_counts(topology, fraction), strict=True):
        old, known = mask[layer.slice], scores[layer.slice]
        r = min(r, int((~old & (known > -math.inf)).sum()))
        mask[layer.slice] = drop_and_grow(old, weights[layer.slice], known, r)
    return topology.changed(mask)


@dataclass(frozen=True)
class Report:
    """Values of some weights, such as gradients, which a client sends to the server.

    Attributes:
        indices: int64, shape ``(k,)``, strictly ascending positions in the flat vector.
        values: float32, shape ``(k,)``.
    """

    indices: Tensor
    values: Tensor


def top_report(scores: Tensor, candidates: Tensor, k: int) -> Report:
    """A report of the ``k`` largest scores, float, shape ``(n,)``, among the candidates, bool, shape ``(n,)``."""
    return _report(scores, largest_mask(scores, candidates, k))


def _report(values: Tensor, reported: Tensor) -> Report:
    """The values, shape ``(n,)``, where ``reported``, bool, shape ``(n,)``, is True."""
    indices = reported.nonzero().squeeze(1)
    return Report(indices, values[indices].float())


def report_growth(topology: Topology, weights: Tensor, gradient: Tensor, fraction: float) -> Report:
    """A report of each layer's largest gradients among the inactive weights, as many as the layer will exchange.

    A weight that is dropped may grow again. So the report also has a weight that this client would drop, if its
    gradient is at least the smallest reported gradient of an inactive weight.

    Args:
        weights: the local weights, shape ``(parameters,)``.
        gradient: shape ``(parameters,)``, dense: also for the weights that do not exist.
    """
    magnitudes = gradient.abs()
    reported = torch.zeros_like(topology.mask)
    for layer, r in zip(topology.layers, exchange_counts(topology, fraction), strict=True):
        if r:
            mask, scores = topology.mask[layer.slice], magnitudes[layer.slice]
            grown = largest_mask(scores, ~mask, r)
            dropped = largest_mask(-weights[layer.slice].abs(), mask, r)
            reported[layer.slice] = grown | (dropped & (scores >= scores[grown].min()))
    return _report(gradient, reported)


class ReportSum:
    """The average of the clients' reports, added one at a time; a weight that a client does not report counts as 0.

    Attributes:
        total: float64, shape ``(parameters,)``: the weighted sum.
        weight: the sum of the reports' weights.
        known: bool, shape ``(parameters,)``: True for the weights that at least one client has reported.
    """

    def __init__(self, parameters: int) -> None:
        self.total = torch.zeros(parameters, dtype=torch.float64)
        self.known = torch.zeros(parameters, dtype=torch.bool)
        self.weight = 0.0

    def add(self, report: Report, weight: float = 1.0) -> None:
        """Add a report multiplied by ``weight``, such as the client's number of samples.

        Raises:
            ValueError: indices out of order or bounds, values missing or not finite.
        """
        indices, values = report.indices, report.values
        if indices.shape != values.shape or indices.dim() != 1:
            raise ValueError(f"a report has {tuple(indices.shape)} indices but {tuple(values.shape)} values")
        if not indices.numel():
            return
        if int(indices[0]) < 0 or int(indices[-1]) >= self.total.numel() or bool((indices.diff() <= 0).any()):
            raise ValueError(f"a report's indices should ascend within 0 and {self.total.numel() - 1}")
        if not bool(values.isfinite().all()):
            raise ValueError("a report's values should be finite")
        self.total[indices] += weight * values.double()
        self.known[indices] = True
        self.weight += weight

    @property
    def mean(self) -> Tensor:
        """float64, shape ``(parameters,)``."""
        return self.total / (self.weight or 1.0)

    @property
    def scores(self) -> Tensor:
        """The magnitudes of the mean, float64, shape ``(parameters,)``; -inf where no client has reported."""
        return self.mean.abs().masked_fill(~self.known, -math.inf)


def select_by_votes(topology: Topology, votes: Tensor, held: Tensor, ranking: str = "sum") -> Topology:
    """The weights of largest magnitude over the clients, as many in each layer as ``topology`` has.

    The code of FedDST (Bibikar et al. 2022) ranks by ``mean``, ``|sum n m w / sum n m|``, over the clients that hold a
    weight. ``sum``, ``|sum n m w|``, is the default here, and what the authors of FedRTS (Huang et al. 2025) made of
    FedDST in their code. It counts votes: a weight that one client holds has the votes of one client.

    Args:
        votes: shape ``(parameters,)``, ``sum n m w``.
        held: shape ``(parameters,)``, ``sum n m``. A weight that no client holds is chosen only if ``topology`` has it.
        ranking: sum or mean.
    """
    mask, scores = topology.mask.clone(), votes.abs()
    if ranking == "mean":
        scores = scores / held.masked_fill(held == 0, 1.0)
    candidates = topology.mask | (held > 0)
    for layer, count in zip(topology.layers, topology.counts, strict=True):
        mask[layer.slice] = largest_mask(scores[layer.slice], candidates[layer.slice], count)
    return topology.changed(mask)
