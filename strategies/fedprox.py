"""FedProx (Li et al. 2020, "Federated optimization in heterogeneous networks", algorithm 2)."""

from strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """FedAvg on the server; clients add (mu / 2) ||w - w_global||^2 to their loss, with mu = proximal_mu.

    The term's gradient mu (w - w_global) is added in ``fedsparse.training``, which reads the strategy's name from the
    settings that come with every message.
    """
