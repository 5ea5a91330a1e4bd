"""FedDST: Bibikar et al. 2022, "Federated Dynamic Sparse Training".

Clients readjust in the middle of their local training (algorithm 1), so that a grown weight is trained before it is
uploaded. A client that readjusted last would upload zeros, which the server's selection by magnitude discards at once.

Not as in the authors' code: it ranks by the mean over the clients that hold a weight, as ``vote_ranking`` mean does
(see ``select_by_votes``), and starts from each layer's largest initial weights, as ``initial_mask`` magnitude does; the
start here is random, with scaled weights (``initialise_``). Its clients readjust after an epoch, not in its middle.
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
        return select_by_votes(topology, result.votes.total[:n], result.votes.held[:n], self.vote_ranking)
