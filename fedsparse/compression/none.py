"""No selection: every coordinate travels. The dense baseline, through the same wire as everything else."""

from fedsparse.compression.arrays import Array
from fedsparse.compression.selection import Part


class NoSelection:
    def indices(self, vector: Array, parts: list[Part], memory: dict[str, Array], seed: int) -> None:
        return None
