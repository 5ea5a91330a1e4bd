"""Which weights exist, and how that changes: topologies on the flat vector, and pruning before upload."""

from fedsparse.sparsity.method import TopologyMethod
from fedsparse.sparsity.topology import Layer, Topology, weight_layers

__all__ = ["Layer", "Topology", "TopologyMethod", "weight_layers"]
