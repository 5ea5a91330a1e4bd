"""No selection: every coordinate travels. The dense baseline, through the same wire as everything else."""

from fedsparse.compression.client_state import Array, ClientState
from fedsparse.compression.selection import Part, Selected, accumulate


class NoSelection:
    def select(self, update: Array, state: ClientState, parts: list[Part], round: int, seed: int) -> Selected:
        return Selected(accumulate(update, state), None)
