"""A fixed threshold: every magnitude of at least the threshold travels, so that the number varies with the update.

Strom, "Scalable Distributed DNN Training Using Commodity GPU Cloud Computing", Interspeech 2015, section 2; Dutta et
al., "On the Discrepancy between the Theoretical Analysis and Practical Implementations of Compressed Communication for
Distributed Deep Learning", AAAI 2020, section 4: with error feedback a coordinate travels once enough has added up.
"""

from fedsparse.compression.arrays import Array, magnitudes_of, true_indices
from fedsparse.compression.selection import Part


class Threshold:
    """Keeps magnitudes of at least ``threshold``, whatever the density.

    Args:
        threshold: above 0, in the units of an update.
    """

    goes_by_density = False

    def __init__(self, threshold: float = 0.01) -> None:
        if not threshold > 0:
            raise ValueError(f"threshold must be above 0, not {threshold}")
        self.threshold = threshold

    def indices(self, vector: Array, parts: list[Part], memory: dict[str, Array], seed: int) -> list[Array]:
        return [true_indices(magnitudes_of(vector[start:stop]) >= self.threshold) + start for start, stop, _ in parts]
