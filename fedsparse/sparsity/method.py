"""What every method of choosing and changing a topology answers; each method is a file that overrides what it does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Generator, Tensor

from fedsparse.aggregation.mean import Votes
from fedsparse.sparsity.densities import DISTRIBUTIONS
from fedsparse.sparsity.readjust import Report, ReportSum, cosine_fraction
from fedsparse.sparsity.topology import Layer, Topology

Layers = tuple[Layer, ...]
Growth = Literal["gradient", "random", "momentum"]


@dataclass
class RoundResult:
    """What the server knows at the end of a readjustment round; a client that was lost has simply not been added.

    Attributes:
        round: 1, 2, ...
        weights: the aggregated global weights, shape ``(parameters,)``.
        generator: on the CPU, for random growth.
        reports: the clients' reports, averaged by samples; None when none came.
        models: the clients' models, summed (votes, and who holds what); None when none came.
    """

    round: int
    weights: Tensor
    generator: Generator
    reports: ReportSum | None = None
    models: Votes | None = None


@dataclass
class TopologyMethod:
    """Settings and hooks of one run. The hooks here keep a fixed random topology; the order of calls is

    1. ``initial`` on the server, after clients sent ``saliency`` if ``needs_saliency``;
    2. in a round with ``is_readjustment``: ``readjust_locally`` on the client, in the middle of its training;
       ``upload_topology`` and ``report`` on the client, after it; ``decide`` on the server, after aggregation.

    Attributes:
        sparsity: of all convolution and linear weights, 0 to 1.
        distribution: of densities over layers, one of ``DISTRIBUTIONS``.
        ratio: share of a layer's weights to exchange that the cosine starts from, at round 0.
        interval: rounds from one readjustment to the next; 0 for none.
        end: the first round without readjustment. Below the number of rounds, so that what is grown gets trained.
        growth: what scores an inactive weight.
        momentum: of the moving average, for growth by momentum.
        alpha: exponent of the weights' re-parameterisation in local training (see ``sparsyfed``); 1 for none.
        importance: the previous average, for growth by momentum; part of a checkpoint.
    """

    sparsity: float
    distribution: str = "erk"
    ratio: float = 0.3
    interval: int = 10
    end: int = 0
    growth: Growth = "gradient"
    momentum: float = 0.9
    alpha: float = 1.0
    importance: Tensor | None = None

    needs_saliency: ClassVar[bool] = False
    """Clients send ``ssfl.saliency`` of the initial weights before round 1, and ``initial`` gets the sum."""
    scales_initial: ClassVar[bool] = True
    """The initial weights are made larger in sparse layers (``initialise_``); not where the largest were chosen."""
    clients_choose: ClassVar[bool] = False
    """Clients train or upload under masks of their own, which travel with their update in readjustment rounds."""

    clients_vote: ClassVar[bool] = False
    """The server decides by the clients' weights: in readjustment rounds they upload all that they hold, for what a
    compressor keeps back would count as a vote against it."""
    trains_all: ClassVar[bool] = False
    """Clients train the weights that do not exist too, from 0."""

    def initial(
        self, layers: Layers, parameters: int, generator: Generator, saliency: Tensor | None = None
    ) -> Topology:
        """The topology of round 1.

        Args:
            layers: from ``weight_layers``.
            parameters: ``layout.parameters``.
            generator: on the CPU.
            saliency: float, shape ``(parameters,)``, for methods that need it.

        Raises:
            ValueError: the sparsity cannot be met.
        """
        return Topology.random(layers, parameters, self.counts(layers, self.sparsity), generator)

    @property
    def reports(self) -> bool:
        """Whether clients ``report`` in readjustment rounds, for which they need one more pass over their samples."""
        return False

    def is_readjustment(self, round: int) -> bool:
        """Whether the topology may change in this round (1, 2, ...). Counted in rounds alone, whatever the epochs."""
        return self.interval > 0 and round % self.interval == 0 and round < self.end

    def fraction(self, round: int) -> float:
        return cosine_fraction(round, self.end, self.ratio)

    def readjust_locally(self, topology: Topology, weights: Tensor, gradient: Tensor, round: int) -> Topology:
        """The client's own topology for the rest of this round's training.

        Args:
            weights: the local weights, shape ``(parameters,)``.
            gradient: dense (of the weights that do not exist too), shape ``(parameters,)``; what stands for it with
                another ``growth``.
        """
        return topology

    def upload_topology(self, topology: Topology, weights: Tensor) -> Topology:
        """Which of its trained weights the client uploads; ``topology`` is what it trained under. Asked every round."""
        return topology

    def allows(self, topology: Topology, own: Topology) -> bool:
        """Whether a client that was sent ``topology`` may upload under ``own``; asked where ``clients_choose``."""
        return own.counts == topology.counts

    def report(self, topology: Topology, weights: Tensor, gradient: Tensor, round: int) -> Report | None:
        """What else the client sends in a readjustment round, about its trained weights and their dense gradient."""
        return None

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        """The server's topology for the next round, or ``topology`` itself when nothing changed."""
        return topology

    def counts(self, layers: Sequence[Layer], sparsity: float) -> tuple[int, ...]:
        return DISTRIBUTIONS[self.distribution](layers, sparsity)
