"""No selection: every coordinate travels. This is the dense baseline, in the same wire format."""

from fedsparse.compression.arrays import Array
from fedsparse.compression.selection import Part


class NoSelection:
    def indices(self, vector: Array, parts: list[Part], memory: dict[str, Array], seed: int) -> None:
        return None
