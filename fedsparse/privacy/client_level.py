"""Client-level differential privacy of a run: the weights that it releases tell little of any one client.

Neighbouring federations differ in one client, with all its data: in one of them it sends nothing, in any round. The
number of clients is no secret.

The server's noise. In round t the server releases a function of ``Y_t = sum_i b_it c_it + noise``, where ``b_it`` says
whether client i was drawn, independently of all else, and ``c_it``, of length ``dp-clip`` at most, is what the server
makes of its payload. That may depend on everything client i has seen and kept: its data, all earlier weights, its
residual, momenta and earlier draws ``b_is``. The guarantee needs nothing of it but its length, so it holds for every
compressor and for hostile clients, and with error feedback too:

1. Fix what all others draw, which does not depend on client i. Given the earlier weights, the others' payloads are
   then fixed, since their states depend on client i by way of these weights alone.
2. Without client i, ``Y_t`` is a Gaussian around the sum of the others. With it, ``Y_t`` is a mixture, over the
   client's earlier draws as the earlier weights let them appear, of the mixtures that the subsampled Gaussian has: the
   same Gaussian with probability 1 - q, and one moved by ``c_it`` with probability q. ``b_it`` is drawn anew, so that
   q is the same in each.
3. Divergences of differential privacy are jointly convex, so that the mixture is no further from the first Gaussian
   than the worst of its parts, whose distance is the accountant's. Rounds compose adaptively: Zhu, Dong and Wang,
   "Optimal accounting of differential privacy via characteristic function", AISTATS 2022, theorem 10. What was fixed
   in 1 has the same distribution on both sides, and is averaged over by the same convexity.

So nothing that is released may depend on several clients but through ``Y_t``: no second cohort, no stop when many fail,
no limit that compares clients, no votes, reports or running statistics. What follows from released weights, such as a
topology by magnitude, a server optimizer or a compressed downlink, costs nothing.

The clients' noise. Each client cuts what it sends to ``dp-clip``, and adds a share of the noise of which
``min-replies`` shares make the whole. Fewer replies are a void round. Here all may know who takes part, so the
client that sends nothing replies like any other, by its noise alone, and sampling amplifies nothing. The sum alone must
be seen: a reply on its own has only its share of noise. Nothing is kept back for later rounds: a residual that held
noise would take away that of other clients later.
"""

import math
from typing import Any

import torch

from fedsparse.compression import UpdateCodec
from fedsparse.compression.shared_support import shared_support
from fedsparse.config import Config
from fedsparse.privacy.accountant import Accountant
from fedsparse.privacy.noise import repeatable_bits, secret_bits
from fedsparse.privacy.one_support import check_one_support
from fedsparse.privacy.private_sum import PrivateSum
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import TopologyMethod
from fedsparse.sparsity.compact import Compact
from fedsparse.vector import Layout


class ClientLevel:
    """The guarantee of a run.

    Args:
        config: with ``dp-noise`` or ``dp-epsilon``.
        layout: of the model.
        method: chooses the topology.

    Attributes:
        accountant: knows epsilon, and the noise.

    Raises:
        ConfigError: the guarantee would not hold, or its accountant is not installed.
    """

    def __init__(self, config: Config, layout: Layout, method: TopologyMethod) -> None:
        check_one_support("dp-noise, dp-epsilon", config, layout, method)
        self.config, self.accountant = config, Accountant(config)

    def sum_of(self, round: int, compact: Compact, *, secret: bool) -> PrivateSum:
        """The aggregator of a round.

        Args:
            compact: of the topology.
            secret: draw the noise from bits that cannot be known, instead of the settings' seed.
        """
        config, by_server = self.config, self.config.noise_by_server
        support, seed = compact.topology.mask, config.support_seed(round)
        if seed is not None and config.compression()["compressor"] == "randomk":
            drawn = shared_support(UpdateCodec(compact.layout, **config.compression()), round, seed)
            support = torch.zeros(compact.full.parameters, dtype=torch.bool)
            support[compact.positions[torch.from_numpy(drawn)]] = True
        self._sum = PrivateSum(
            compact.full.size,
            support,
            clip=config.dp_clip if by_server else self._longest_reply(int(support.count_nonzero())),
            deviation=self.accountant.noise * config.dp_clip if by_server else 0.0,
            expected=config.clients_per_round,
            bits=secret_bits if secret else repeatable_bits(derive_seed(config.seed, "noise", round=round)),
        )
        return self._sum

    def _longest_reply(self, coordinates: int) -> float:
        """A length that an honest reply with noise of its own exceeds with a probability below 1e-20.

        The norm of that noise is at most 10 standard deviations above its mean.
        """
        share = self.accountant.noise * self.config.dp_clip / math.sqrt(self.config.min_replies)
        # Counts of coordinates are rounded, so that size / count may be above 1 / density.
        scale = 2 / self.config.density if self.config.compression()["unbiased"] else 1.0
        return scale * (self.config.dp_clip + share * (math.sqrt(coordinates) + 10))

    def measured(self, round: int) -> dict[str, float]:
        """What a round has cost, and the share of its updates that were cut, under telemetry's tags."""
        told = {"privacy/epsilon": self.accountant.epsilon(round)}
        if self.config.noise_by_server and self._sum.count:
            told["privacy/clipped"] = self._sum.clipped / self._sum.count
        return told

    def claim(self) -> dict[str, Any]:
        """What a result says of its privacy, beside epsilon."""
        by_server = self.config.noise_by_server
        return {
            "delta": self.accountant.delta,
            "noise": self.accountant.noise,
            "clip": self.config.dp_clip,
            "noise-by": self.config.dp_noise_by,
            "release": self.accountant.release,
            "neighbours": "one client, which sends nothing" if by_server else "one client, which sends noise alone",
        }
