"""FedDST: Bibikar et al. 2022, "Federated Dynamic Sparse Training".

Clients readjust in the middle of their local training (algorithm 1), so that a grown weight is trained before it is
uploaded. After a readjustment at the end, a client would upload 0 for each grown weight, and the server, which selects
by magnitude, would discard these weights at once.
"""

from torch import Tensor

from fedsparse.sparsity.method import RoundResult, TopologyMethod
from fedsparse.sparsity.readjust import readjust, select_by_votes
from fedsparse.sparsity.topology import Topology


class FedDST(TopologyMethod):
    """Clients drop and grow weights; the server elects as many of each layer as before, by the clients' votes."""

    clients_choose = True
    clients_vote = True

    def readjust_locally(self, topology: Topology, weights: Tensor, gradient: Tensor, round: int) -> Topology:
        return readjust(topology, weights, gradient.abs(), self.fraction(round))

    def decide(self, topology: Topology, result: RoundResult) -> Topology:
        if result.votes is None:
            return topology
        n = topology.mask.numel()
        return select_by_votes(topology, result.votes.total[:n], result.votes.held[:n])
