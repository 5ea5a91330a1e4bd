"""Readjustment: drop the smallest of the weights that exist, grow as many elsewhere.

Evci et al. 2020, "Rigging the Lottery" (section 3, algorithm 1); growth at random is SET (Mocanu et al. 2018), growth
by a moving average of gradients is sparse momentum (Dettmers and Zettlemoyer 2019).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsparse.sparsity.topology import Topology


def cosine_fraction(round: int, end: int, ratio: float) -> float:
    """The share of a layer's weights to exchange: ``ratio`` at round 0, half midway, 0 from ``end`` on (eq. 1)."""
    return ratio / 2 * (1 + math.cos(math.pi * round / end)) if round < end else 0.0


def exchange_counts(topology: Topology, fraction: float) -> tuple[int, ...]:
    """``r`` of each layer: ``fraction`` of its active weights, but never more than it has inactive ones."""
    pairs = zip(topology.layers, topology.counts, strict=True)
    return tuple(min(round(fraction * active), layer.size - active) for layer, active in pairs)


def top_indices(scores: Tensor, candidates: Tensor, k: int) -> Tensor:
    """Indices of the ``k`` largest scores among the candidates; ties go to the lower index, NaN comes last.

    Args:
        scores: float, shape ``(n,)``.
        candidates: bool, shape ``(n,)``, at least ``k`` True.

    Returns:
        int64, shape ``(k,)``, in no particular order.
    """
    index = candidates.nonzero().squeeze(1)
    if k == 0:
        return index[:0]
    among = scores[index].nan_to_num(nan=torch.finfo(scores.dtype).min)
    threshold = among.topk(k, sorted=False).values.min()
    above = index[among > threshold]
    # topk breaks ties as it likes, differently on each device; the first of the equals are taken here instead.
    return torch.cat([above, index[among == threshold][: k - above.numel()]])


def drop_and_grow(mask: Tensor, weights: Tensor, scores: Tensor, r: int) -> Tensor:
    """Exchange ``r`` weights of one layer.

    A weight just dropped is a candidate to grow (and then keeps its value), a surviving one is not.

    Args:
        mask: bool, shape ``(n,)``, with at least ``r`` True and ``r`` False.
        weights: shape ``(n,)``; the ``r`` smallest magnitudes among the active are dropped.
        scores: shape ``(n,)``; the ``r`` largest among all that then do not exist are grown.

    Returns:
        A new mask with as many True.
    """
    new = mask.clone()
    new[top_indices(-weights.abs(), mask, r)] = False
    new[top_indices(scores, ~new, r)] = True
    return new


def readjust(topology: Topology, weights: Tensor, scores: Tensor, fraction: float) -> Topology:
    """Exchange ``fraction`` of every layer's weights; each layer keeps its count.

    Args:
        weights: float, shape ``(parameters,)``.
        scores: float, shape ``(parameters,)``, such as gradient magnitudes. Where none is known it is -inf, and no more
            is exchanged than there are known scores of inactive weights.
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
    """What a client tells the server about weights, sparsely.

    Attributes:
        indices: int64, shape ``(k,)``, strictly ascending positions in the flat vector.
        values: float32, shape ``(k,)``.
    """

    indices: Tensor
    values: Tensor


def top_report(scores: Tensor, candidates: Tensor, k: int) -> Report:
    """The ``k`` largest scores, float, shape ``(n,)``, among the candidates, bool, shape ``(n,)``."""
    indices = top_indices(scores, candidates, k).sort().values
    return Report(indices, scores[indices].float())


def report_growth(topology: Topology, weights: Tensor, gradient: Tensor, fraction: float) -> Report:
    """The gradients of largest magnitude of each layer's inactive weights, as many as it will exchange, and what beats
    them among the weights that this client would drop: a dropped weight may grow again, if the server hears of it.

    Args:
        weights: the local ones, shape ``(parameters,)``.
        gradient: shape ``(parameters,)``, dense: of the weights that do not exist too.
    """
    magnitudes = gradient.abs()
    reported = torch.zeros_like(topology.mask)
    for layer, r in zip(topology.layers, exchange_counts(topology, fraction), strict=True):
        if r:
            mask, scores = topology.mask[layer.slice], magnitudes[layer.slice]
            grown = top_indices(scores, ~mask, r)
            dropped = top_indices(-weights[layer.slice].abs(), mask, r)
            reported[layer.start + grown] = True
            reported[layer.start + dropped[scores[dropped] >= scores[grown].min()]] = True
    indices = reported.nonzero().squeeze(1)
    return Report(indices, gradient[indices].float())


class ReportSum:
    """Clients' reports averaged, one at a time; what a client leaves out counts as 0.

    Attributes:
        total: float64, shape ``(parameters,)``: the weighted sum.
        weight: of all reports.
        known: bool, shape ``(parameters,)``: where at least one client has reported.
    """

    def __init__(self, parameters: int, device: torch.device | str = "cpu") -> None:
        self.total = torch.zeros(parameters, dtype=torch.float64, device=device)
        self.known = torch.zeros(parameters, dtype=torch.bool, device=device)
        self.weight = 0.0

    def add(self, report: Report, weight: float = 1.0) -> None:
        """Add ``weight`` (such as the client's share of the samples) times a report.

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
        """The magnitudes of the mean, float64, shape ``(parameters,)``; -inf where nobody has reported."""
        return self.mean.abs().masked_fill(~self.known, -math.inf)


def select_by_votes(topology: Topology, votes: Tensor, held: Tensor) -> Topology:
    """Exactly ``cnt[l]`` weights of each layer, by ``|sum n m w|`` over the clients (FedDST's server, made exact).

    The sum, not the mean over those who hold a weight: a weight that one client holds has one client's votes.

    Args:
        votes: shape ``(parameters,)``, ``sum n m w``.
        held: shape ``(parameters,)``, ``sum n m``. Only what someone holds, or the topology has, is chosen.
    """
    mask = topology.mask.clone()
    candidates = topology.mask | (held > 0)
    for layer, count in zip(topology.layers, topology.counts, strict=True):
        chosen = top_indices(votes[layer.slice].abs(), candidates[layer.slice], count)
        mask[layer.slice] = False
        mask[layer.start + chosen] = True
    return topology.changed(mask)
