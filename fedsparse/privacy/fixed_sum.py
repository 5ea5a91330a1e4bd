"""The arithmetic of secure aggregation: updates become whole numbers, and the sum of these a weighted mean.

A client that trained on n samples, of at most N, sends ``round(u n / N / step)`` for each value u of its update. What
rounding and the limit of ``bits`` bits take away stays in its residual, if it keeps one. The sum of all clients'
numbers, times step and N, divided by the sum of their samples, is their mean weighted by samples (FedAvg's).
"""

from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from fedsparse.compression import ClientState, SparseUpdate, UpdateCodec
from fedsparse.compression.fixed import FixedPoint
from fedsparse.privacy.masked_payload import signed, word_bits


@dataclass(frozen=True)
class FixedSum:
    """The whole numbers of a run's secure sums.

    Attributes:
        limit: the largest magnitude of ``u n / N``.
        bits: of a client's number with its sign, 2 to 16.
        clients: the most clients in a sum.
        samples: N.
    """

    limit: float
    bits: int
    clients: int
    samples: int

    @property
    def word_bits(self) -> int:
        """Bits of a number in the sum, which therefore never overflows."""
        return word_bits(self.bits, self.clients)

    @property
    def step(self) -> float:
        """The value of the number 1 for a client with N samples."""
        return self.limit / ((1 << self.bits - 1) - 1)

    def _coding(self, samples: int) -> FixedPoint:
        return FixedPoint(self.step * self.samples / samples, self.bits)

    def codec(self, codec: UpdateCodec, samples: int) -> UpdateCodec:
        """A codec that selects as ``codec`` does, for a client with so many samples."""
        fixed = copy(codec)
        fixed.values = self._coding(samples)
        return fixed

    def words(self, update: SparseUpdate, samples: int) -> np.ndarray:
        """The numbers of a decoded payload of such a codec, uint32: modulo 2^32."""
        coding = self._coding(samples)
        return np.concatenate([coding.multiples(s.values) for s in update.segments]).view(np.uint32)

    def form(self, codec: UpdateCodec, round: int, support: int | None) -> SparseUpdate:
        """The update of zeros with the coordinates that all clients of a round send."""
        fixed, zeros = self.codec(codec, self.samples), np.zeros(codec.layout.size, np.float32)
        payload, _ = fixed.encode(zeros, ClientState(), round=round, seed=0, support=support)
        return fixed.decode(payload)

    def mean(self, form: SparseUpdate, words: np.ndarray, samples: int) -> SparseUpdate:
        """The mean of clients that trained on so many samples together, from the sum of their numbers.

        Args:
            form: has the mean's coordinates.
            words: the sum, uint32, modulo ``2^word_bits``.
        """
        values = (signed(words, self.word_bits) * (self.step * self.samples / samples)).astype(np.float32)
        cuts = np.cumsum([s.values.size for s in form.segments])[:-1]
        pairs = zip(form.segments, np.split(values, cuts), strict=True)
        return replace(form, segments=tuple(replace(segment, values=part) for segment, part in pairs))
