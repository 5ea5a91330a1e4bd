"""Topologies that never change."""

from torch import Generator, Tensor

from fedsparse.sparsity.method import Layers, TopologyMethod
from fedsparse.sparsity.topology import Topology


class Static(TopologyMethod):
    """A random topology at the given densities, the baseline of all methods that readjust."""

    def is_readjustment(self, round: int) -> bool:
        return False


class Dense(Static):
    """Every weight exists, whatever the sparsity."""

    def initial(
        self, layers: Layers, parameters: int, generator: Generator, saliency: Tensor | None = None
    ) -> Topology:
        return Topology.full(layers, parameters)
