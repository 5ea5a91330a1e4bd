"""A fixed threshold: everything at least so large travels, be it much, little or nothing.

Strom, "Scalable Distributed DNN Training Using Commodity GPU Cloud Computing", Interspeech 2015, section 2; Dutta et
al., "On the Discrepancy between the Theoretical Analysis and Practical Implementations of Compressed Communication for
Distributed Deep Learning", AAAI 2020, section 4: with error feedback it sends what is due when it is due.
"""

from fedsparse.compression.client_state import Array, ClientState
from fedsparse.compression.near import magnitudes_of, where
from fedsparse.compression.selection import Part, Selected, accumulate


class Threshold:
    """Keeps magnitudes of at least ``threshold``; the density has no say.

    Args:
        threshold: above 0, in the units of an update.
    """

    def __init__(self, threshold: float = 0.01) -> None:
        if not threshold > 0:
            raise ValueError(f"threshold must be above 0, not {threshold}")
        self.threshold = threshold

    def select(self, update: Array, state: ClientState, parts: list[Part], round: int, seed: int) -> Selected:
        vector = accumulate(update, state)
        return Selected(vector, [where(magnitudes_of(vector[a:b]) >= self.threshold) + a for a, b, _ in parts])
