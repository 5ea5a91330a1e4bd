"""Random-k: coordinates drawn at random; the seed travels in their place, and the server draws them again.

Konečný et al., "Federated Learning: Strategies for Improving Communication Efficiency", 2016, section 2 (random mask);
Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, definition 2.1.
"""

from fedsparse.compression.arrays import Array
from fedsparse.compression.indices import draw
from fedsparse.compression.selection import Part


class RandomK:
    """Keeps ``k`` coordinates of each part at random. An unbiased codec multiplies their values by size / k."""

    seeded = True

    def indices(self, vector: Array, parts: list[Part], memory: dict[str, Array], seed: int) -> list[Array]:
        return [draw(seed, i, k, stop - start) + start for i, (start, stop, k) in enumerate(parts)]
