"""Which weights exist, and how that changes: topologies on the flat vector, and pruning before upload."""

from fedsparse.sparsity.feddst import FedDST
from fedsparse.sparsity.magnitude import Magnitude
from fedsparse.sparsity.method import Method
from fedsparse.sparsity.prunefl import PruneFL
from fedsparse.sparsity.rigl import RigL
from fedsparse.sparsity.set import Set
from fedsparse.sparsity.small_dense import SmallDense
from fedsparse.sparsity.sparsyfed import SparsyFed
from fedsparse.sparsity.ssfl import SSFL
from fedsparse.sparsity.static import Dense, Static
from fedsparse.sparsity.topology import Layer, Topology, weight_layers

METHODS: dict[str, type[Method]] = {
    "dense": Dense,
    "static": Static,
    "set": Set,
    "rigl": RigL,
    "feddst": FedDST,
    "prunefl": PruneFL,
    "ssfl": SSFL,
    "sparsyfed": SparsyFed,
    "magnitude": Magnitude,
    "small-dense": SmallDense,
}

__all__ = ["METHODS", "Layer", "Method", "Topology", "weight_layers"]
