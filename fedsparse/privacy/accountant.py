"""How much a run reveals of any one client: its epsilon after each round.

The privacy loss distribution of one round, composed with itself, by Google's ``dp-accounting``: Koskela, Jälkö and
Honkela, "Computing tight differential privacy guarantees using FFT", AISTATS 2020; Doroshenko et al., "Connect the
dots: tighter discrete approximations of privacy loss distributions", PoPETs 2022. Its results are upper bounds.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.sampling import sampled

INTERVAL = 1e-3
"""Step of the discretised privacy loss, for noise of one sensitivity or more. With a tenth of it, epsilon would be at
most half a percent smaller after 10,000 rounds, and take ten times as long."""
TOLERANCE = 1e-3
"""How much more noise than needed, relatively, a calibration may find."""
LEAST, MOST = 0.05, 1e6
"""The noise multipliers of ``dp-noise``."""


class Accountant:
    """The epsilon of a run, which its settings and the number of rounds decide alone.

    Where the server adds the noise, every round is the Gaussian mechanism on a Poisson sample. Where clients add it,
    the server and other clients may know who takes part, so a round costs only those clients that it asks, and
    all of that: epsilon is that of the client that was asked most often.

    Args:
        config: of a run with differential privacy.

    Attributes:
        delta: of the guarantee.
        noise: the noise multiplier: the one of the settings, or the smallest that keeps to ``dp-epsilon``.

    Raises:
        ConfigError: ``dp-accounting`` is not installed, or no noise keeps to ``dp-epsilon``.
    """

    def __init__(self, config: Config) -> None:
        library()
        self.config = config
        self.delta = config.clients**-1.1 if config.dp_delta == "auto" else config.dp_delta
        if self.delta >= 1:
            raise ConfigError("dp-delta = auto: is clients^-1.1, and there is one client; give a delta below 1")
        self.rate = config.clients_per_round / config.clients if config.noise_by_server else 1.0
        self._asked, self._most = np.zeros(config.clients, np.int64), [0]
        self.noise = self._calibrated() if config.dp_noise == "off" else config.dp_noise

    def epsilon(self, round: int) -> float:
        """Epsilon at ``delta`` of the weights that were released up to a round."""
        return spent(self.noise, self.rate, self._releases(round), self.delta)

    @property
    def release(self) -> str:
        """One release as an event of ``dp-accounting``, from which anybody can compute epsilon again."""
        dp = library()
        event = dp.GaussianDpEvent(self.noise)
        return str(dp.PoissonSampledDpEvent(self.rate, event) if self.config.noise_by_server else event)

    def _releases(self, round: int) -> int:
        """How many releases up to a round a client may be in."""
        if self.config.noise_by_server:
            return round
        for later in range(len(self._most), round + 1):
            self._asked[sampled(self.config, later)] += 1
            self._most.append(int(self._asked.max()))
        return self._most[round]

    def _calibrated(self) -> float:
        """The smallest noise multiplier that keeps to ``dp-epsilon`` after all rounds, by bisection."""
        releases, wanted = self._releases(self.config.rounds), float(self.config.dp_epsilon)
        low, high = LEAST, 1.0
        while spent(high, self.rate, releases, self.delta) > wanted:
            low, high = high, 2 * high
            if high > MOST:
                raise ConfigError(f"dp-epsilon = {wanted:g}: no noise keeps to it for {self.config.rounds} rounds")
        while high / low > 1 + TOLERANCE:
            middle = math.sqrt(low * high)
            if spent(middle, self.rate, releases, self.delta) > wanted:
                low = middle
            else:
                high = middle
        return high


@lru_cache(maxsize=128)  # because the check before a run calibrates its noise too
def spent(noise: float, rate: float, releases: int, delta: float) -> float:
    """Epsilon at ``delta`` of several releases of the Gaussian mechanism, each on a Poisson sample.

    Args:
        noise: standard deviation in multiples of the sensitivity.
        rate: the probability with which a client is in a sample.
    """
    return float(_loss(noise, rate).self_compose(releases).get_epsilon_for_delta(delta)) if releases else 0.0


@lru_cache(maxsize=2)
def _loss(noise: float, rate: float) -> Any:
    """The privacy loss distribution of one release, where a neighbouring federation has one client more or less."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    interval = INTERVAL * max(1.0, noise**-2)  # the loss's range grows with the inverse square
    return pld.from_gaussian_mechanism(noise, value_discretization_interval=interval, sampling_prob=rate)


def library() -> Any:
    """``dp_accounting``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import dp_accounting
    except ImportError:
        raise ConfigError("dp-noise, dp-epsilon: need dp-accounting, pip install 'fedsparse[dp]'") from None
    return dp_accounting
