"""Random-k: coordinates drawn from a seed that both sides share, so that only the seed travels.

Konečný et al., "Federated Learning: Strategies for Improving Communication Efficiency", 2016, section 2 (random mask);
Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, definition 2.1.
"""

from fedsparse.compression.client_state import Array, ClientState
from fedsparse.compression.indices import draw
from fedsparse.compression.selection import Part, Selected, accumulate


class RandomK:
    """Keeps ``k`` of each part at random; multiplied by size / k where the codec is to be unbiased."""

    def select(self, update: Array, state: ClientState, parts: list[Part], round: int, seed: int) -> Selected:
        vector = accumulate(update, state)
        drawn = [draw(seed, i, k, stop - start) + start for i, (start, stop, k) in enumerate(parts)]
        return Selected(vector, list(drawn), seeded=True)
