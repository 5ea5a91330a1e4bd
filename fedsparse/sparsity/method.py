"""The base class of the methods that choose and change a topology. Each method is a subclass in its own file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from fedsparse.aggregation.mean import Votes
from fedsparse.errors import PluginError
from fedsparse.sparsity.densities import DISTRIBUTIONS, SparsityOf
from fedsparse.sparsity.largest import largest_mask
from fedsparse.sparsity.readjust import Report, ReportSum, cosine_fraction
from fedsparse.sparsity.topology import Layer, Topology

Layers = tuple[Layer, ...]
Growth = Literal["gradient", "random", "momentum"]
InitialMask = Literal["random", "magnitude"]
Ranking = Literal["sum", "mean"]
State = dict[str, Any]
"""Tensors, numbers and strings by name: a part of a checkpoint."""


@dataclass
class RoundResult:
    """The server's knowledge at the end of a readjustment round, from the clients whose replies it accepted.

    Attributes:
        round: 1, 2, ...
        weights: the aggregated global weights, shape ``(parameters,)``.
        generator: on the CPU, for random growth.
        reports: the clients' reports, averaged by samples; None when no client sent one.
        votes: the sum of the clients' weights, and for each weight the samples of its holders; None without votes.
    """

    round: int
    weights: Tensor
    generator: Generator
    reports: ReportSum | None = None
    votes: Votes | None = None


@dataclass
class TopologyMethod:
    """How a run chooses and changes its topology. This class itself keeps a random topology.

    ``--topology mine.py:Mine`` names a subclass of the user's own. The server and every client construct it with the
    keywords ``sparsity``, ``distribution``, ``ratio``, ``interval``, ``end``, ``growth``, ``initial_mask``,
    ``sparsity_of`` and ``vote_ranking``, as below, or those of them that its signature takes. It may override any of
    these methods, whose docstrings say what they must return, in the order in which they are called:

    1. ``initial`` on the server gives the topology of round 1.
    2. ``is_readjustment`` everywhere says whether the topology may change in a round.
    3. ``before_step`` and ``after_step`` on each client, around every optimizer step.
    4. ``readjust_locally`` on each client that chooses, in the middle of its training in a readjustment round.
    5. ``upload_topology`` on each client after its training, and ``report`` in a readjustment round.
    6. ``allows`` and then ``decide`` on the server in a readjustment round.

    A subclass whose ``decide`` remembers something also overrides ``state_dict`` and ``load_state_dict``. The methods
    that clients call must remember nothing, because one object serves all the clients of a process.

    Attributes:
        sparsity: of all convolution and linear weights, 0 to 1.
        distribution: of densities over layers, one of ``DISTRIBUTIONS``.
        ratio: the share of each layer's weights that a readjustment would exchange at round 0. This share falls by a
            cosine to 0 at ``end``.
        interval: rounds from one readjustment to the next; 0 for none.
        end: the first round without readjustment; below the number of rounds, so that the last grown weights train.
        growth: the score by which inactive weights grow: gradient magnitude, chance, or a moving average of gradients.
        momentum: of the moving average, for growth by momentum.
        initial_mask: at random, the weights then made larger (``initialise_``), or each layer's largest initial weights
            as they are.
        sparsity_of: which weights the sparsity is a share of, see ``densities.budget``.
        vote_ranking: how ``select_by_votes`` ranks.
    """

    sparsity: float
    distribution: str = "erk"
    ratio: float = 0.3
    interval: int = 10
    end: int = 0
    growth: Growth = "gradient"
    momentum: float = 0.9
    initial_mask: InitialMask = "random"
    sparsity_of: SparsityOf = "all"
    vote_ranking: Ranking = "sum"

    needs_saliency: ClassVar[bool] = False
    """Clients send ``ssfl.saliency`` of the initial weights before round 1, and ``initial`` gets the sum."""
    scales_initial: ClassVar[bool] = True
    """The server enlarges initial weights of sparse layers (``initialise_``). False if a method keeps the largest."""
    clients_choose: ClassVar[bool] = False
    """In readjustment rounds clients train or upload under masks of their own, which travel with their updates."""
    clients_vote: ClassVar[bool] = False
    """The server decides by the clients' weights. In readjustment rounds clients therefore upload every weight that
    they hold: the server would take a weight that a compressor keeps back for a vote against that weight."""
    trains_all: ClassVar[bool] = False
    """Clients also train the weights that do not exist, starting from 0."""

    def initial(
        self, layers: Layers, parameters: int, generator: Generator, saliency: Tensor | None = None
    ) -> Topology:
        """The topology of round 1, on the CPU.

        Args:
            layers: from ``weight_layers``.
            parameters: ``layout.parameters``.
            generator: on the CPU.
            saliency: float, shape ``(parameters,)``, for methods that need it; the magnitudes of the initial weights
                where ``initial_mask`` asks for them.

        Raises:
            ValueError: the sparsity cannot be met.
        """
        counts = self.counts(layers, self.sparsity)
        if self.initial_mask == "random":
            return Topology.random(layers, parameters, counts, generator)
        if saliency is None:
            raise ValueError("initial-mask = magnitude chooses by the initial weights, and there are none")
        mask = torch.ones(parameters, dtype=torch.bool)
        for layer, count in zip(layers, counts, strict=True):
            mask[layer.slice] = largest_mask(saliency[layer.slice], mask[layer.slice], count)
        return Topology(layers, mask)

    def counts(self, layers: Sequence[Layer], sparsity: float) -> tuple[int, ...]:
        """How many weights of each layer exist at a sparsity of the whole model.

        Raises:
            ValueError: the sparsity cannot be met. A run asks before its first round.
        """
        return DISTRIBUTIONS[self.distribution](layers, sparsity, self.sparsity_of)

    def is_readjustment(self, round: int) -> bool:
        """Whether the topology may change in this round (1, 2, ...). The server and all clients must get one answer."""
        return self.interval > 0 and round % self.interval == 0 and round < self.end

    def fraction(self, round: int) -> float:
        """The share of each layer's weights that this round exchanges."""
        return cosine_fraction(round, self.end, self.ratio)

    def before_step(self, weights: Sequence[nn.Parameter]) -> None:
        """Change the prunable weights and their gradients in place before the optimizer's step and clipping.

        Args:
            weights: of the layers that are not dense; the gradients of weights that do not exist are 0.
        """

    def after_step(self, weights: Sequence[nn.Parameter]) -> None:
        """Change the prunable weights in place after the optimizer's step."""

    @property
    def changes_steps(self) -> bool:
        """Whether the class overrides ``before_step`` or ``after_step``. Its clients then train one by one."""
        own, base = type(self), TopologyMethod
        return (own.before_step, own.after_step) != (base.before_step, base.after_step)

    def readjust_locally(self, topology: Topology, weights: Tensor, gradient: Tensor, round: int) -> Topology:
        """The client's topology for the rest of this round's training. Called only where ``clients_choose``.

        Args:
            topology: the server's, on the client's device.
            weights: the local weights, shape ``(parameters,)``.
            gradient: shape ``(parameters,)``, dense: also for the weights that do not exist. With ``growth`` by
                momentum an average over steps, with ``growth`` at random uniform numbers.
        """
        return topology

    def upload_topology(self, topology: Topology, weights: Tensor) -> Topology:
        """The weights that the client uploads; ``topology`` itself when it uploads every weight that it trained.

        Called in every round, but the server accepts another topology only in a readjustment round of a method with
        ``clients_choose``.

        Args:
            topology: under which the client has trained.
            weights: the local weights, shape ``(parameters,)``.
        """
        return topology

    @property
    def reports(self) -> bool:
        """Whether clients ``report`` in readjustment rounds, which costs them one more pass over their samples."""
        return type(self).report is not TopologyMethod.report

    def report(self, topology: Topology, weights: Tensor, gradient: Tensor, round: int) -> Report | None:
        """The report that a client sends beside its update in a readjustment round; None for no report.

        Args:
            topology: the server's, on the client's device.
            weights: the trained weights, shape ``(parameters,)``.
            gradient: of the mean loss over the client's samples, shape ``(parameters,)``, dense.
            round: 1, 2, ...
        """
        return None

    def allows(self, topology: Topology, own: Topology) -> bool:
        """Whether a client that was sent ``topology`` may upload under ``own``. Called only where ``clients_choose``.

        When this returns False, the server refuses the client's reply.
        """
        return own.counts == topology.counts

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        """The server's topology for the next round: ``topology`` itself when nothing changes, else
        ``topology.changed(mask)``, or ``topology.changed(mask, counts=True)`` when layers gain or lose weights.

        It may draw from ``result.generator``, but must not change its arguments in any other way.
        """
        return topology

    def state_dict(self) -> State:
        """The state that ``decide`` keeps from one readjustment to the next; empty when it keeps none."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""


def checked(topology: object, layers: Layers, parameters: int) -> Topology:
    """``topology``, after a check that it is a topology of this model.

    Args:
        topology: the result of ``initial``, ``readjust_locally``, ``upload_topology`` or ``decide``.
        layers: of the model.
        parameters: ``layout.parameters``.

    Raises:
        PluginError: it is not a topology of this model.
    """
    if not isinstance(topology, Topology):
        raise PluginError(f"topology: the method should return a Topology, not {type(topology).__name__}")
    if topology.layers != layers or topology.mask.numel() != parameters:
        raise PluginError(
            f"topology: the method returned a mask of {topology.mask.numel():,} weights in {len(topology.layers)} "
            f"layers; it should have the model's layers, {len(layers)} among {parameters:,} weights"
        )
    return topology
