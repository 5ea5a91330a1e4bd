"""The federation: rounds, cohorts, the server's step, evaluation."""

from typing import Annotated, Literal

from pydantic import Field

from fedsparse.catalogue import AGGREGATORS, STRATEGIES
from fedsparse.config.settings import OneOf, Settings


class FederationSettings(Settings):
    """The federation: rounds, cohorts, the server's step, evaluation."""

    strategy: Annotated[str, OneOf(STRATEGIES)] = "fedavg"
    """What the server does with the averaged update."""
    aggregator: Annotated[str, OneOf(AGGREGATORS)] = "mean"
    """How the updates of a cohort become one."""
    rounds: int = Field(150, ge=1, le=10**9)
    """Rounds of training."""
    clients: int = Field(100, ge=1, le=10**9)
    """Clients in the federation."""
    clients_per_round: int = Field(10, ge=1)
    """Clients sampled each round (the cohort)."""
    server_lr: Annotated[float, Field(gt=0, le=1e6)] | Literal["auto"] = "auto"
    """Server learning rate; auto: 1, but 0.01 for fedadam."""
    server_momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of fedavgm, and beta_1 of fedadam."""
    server_nesterov: bool = False
    """Nesterov's form of fedavgm's momentum, as DiLoCo has it."""
    server_beta2: float = Field(0.99, ge=0, lt=1)
    """beta_2 of fedadam."""
    server_tau: float = Field(1e-3, gt=0)
    """Adaptivity tau of fedadam: added to the root of the second moment."""
    proximal_mu: float = Field(0.01, ge=0, le=1e6)
    """Weight mu of fedprox's term (mu / 2) ||w - w_global||^2."""

    eval_every: int = Field(5, ge=1)
    """Rounds between two evaluations on the pooled test set; the last round is always evaluated."""
    eval_clients: bool = False
    """Evaluate the cohort on its own held-out samples too."""
    holdout: float = Field(0.2, gt=0, lt=1)
    """Share of a client's samples held out for --eval-clients."""
