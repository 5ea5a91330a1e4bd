"""Topologies, which say what weights of the flat vector exist and change over the rounds; and pruning before upload."""

from fedsparse.sparsity.method import TopologyMethod
from fedsparse.sparsity.topology import Layer, Topology, weight_layers

__all__ = ["Layer", "Topology", "TopologyMethod", "weight_layers"]
