"""The Gaussian mechanism on a sum of updates.

McMahan, Ramage, Talwar and Zhang, "Learning differentially private recurrent language models", ICLR 2018, algorithm 1
with the estimator of a fixed denominator: each client's update is cut to a length, weighs as much as any other, and the
sum is divided by the expected size of the cohort. Noise stands only where updates may have values: Hu, Guo and Gong,
"Federated learning with sparsified model perturbation", 2022 (Fed-SMP), for coordinates that a seed has drawn.
"""

import math

import torch
from torch import Tensor

from fedsparse.compression import SparseUpdate
from fedsparse.compression.arrays import blocks
from fedsparse.privacy.noise import Bits, gaussian


class PrivateSum:
    """An ``Aggregator``: ``(sum_i min(1, clip / |u_i|) u_i + noise) / expected``, on the support.

    One client changes the sum before the noise by at most ``clip`` (L2), whatever it sends. The sum is float64, so that
    rounding adds less than a billionth to that. The noise is a floating-point number too; what its last bits may tell
    (Mironov, "On significance of the least significant bits for differential privacy", CCS 2012) is not accounted for.

    Args:
        size: length of the flat vector, which has no buffers.
        support: bool, shape ``(size,)``: the coordinates that updates may have, which no client's data decides.
        clip: longest update that counts whole.
        deviation: standard deviation of the noise of each coordinate; 0 for none.
        expected: how many clients a cohort has in expectation.
        bits: random bits for the noise.

    Attributes:
        total: the sum, float64, shape ``(size,)``.
        count: how many updates were added, and how many of them were ``clipped``.
    """

    def __init__(self, size: int, support: Tensor, clip: float, deviation: float, expected: float, bits: Bits) -> None:
        self.total, self.support = torch.zeros(size, dtype=torch.float64), support
        self.clip, self.deviation, self.expected, self.bits = clip, deviation, expected, bits
        self.count = self.clipped = 0

    def add(self, update: SparseUpdate, samples: float = 1, mask: Tensor | None = None) -> None:
        """Add a client's update. It counts no more for more samples, which would make its length another."""
        norm = math.sqrt(sum(segment.sum_of_squares for segment in update.segments))
        update.add_to(self.total, min(1.0, self.clip / norm) if norm else 1.0)
        self.count, self.clipped = self.count + 1, self.clipped + (norm > self.clip)

    def result(self) -> Tensor:
        """The noisy sum over ``expected``, float32, shape ``(size,)``; without any update, noise alone."""
        self.total.masked_fill_(~self.support, 0)
        if self.deviation:
            for block in blocks(len(self.total)):
                noisy = self.support[block]
                drawn = torch.from_numpy(gaussian(int(noisy.count_nonzero()), self.bits))
                self.total[block][noisy] += drawn.mul_(self.deviation)
        return self.total.div_(self.expected).float()
