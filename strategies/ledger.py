"""What the server knows of each client."""

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, replace


@dataclass
class Known:
    """What the server knows of one client: its line in the ledger.

    Attributes:
        topology: the hash of the mask that the client holds; None when the server cannot know it.
        accepted_round: the last round whose payload was accepted from it; 0 for none.
        weights_round: the round of the global weights that it surely holds; 0 when the server cannot know it.
        sent_round: the round of the weights in the last message to it.
        sent_bytes: how many bytes the arrays in that message had.
        asked_round: the last round in which it was asked to train.
        frozen: the edition of the frozen weights that it surely holds; 0 when the server cannot know it.
    """

    topology: int | None
    accepted_round: int = 0
    weights_round: int = 0
    sent_round: int = 0
    sent_bytes: int = 0
    asked_round: int = 0
    frozen: int = 0

    def lost(self) -> None:
        """Forget what the client holds, because it failed or moved to a new node."""
        self.topology, self.weights_round, self.frozen = None, 0, 0


class Ledger:
    """The lines of all clients, by partition id; a line is made when it is first asked for.

    A round that was cut short is played again from its start, so that a checkpoint needs the lines of that moment.

    Args:
        topology_of: the hash of the mask that a client holds which the server has sent none.

    Attributes:
        changed: the clients that were sampled since the last checkpoint.
    """

    def __init__(self, topology_of: Callable[[int], int]) -> None:
        self.changed = set[int]()
        self._topology_of, self._lines = topology_of, dict[int, Known]()
        self._settled: dict[int, Known] = {}  # lines at the last `settle`, of clients sampled since

    def __getitem__(self, client: int) -> Known:
        if client not in self._lines:
            self._lines[client] = Known(self._topology_of(client))
        return self._lines[client]

    def sampled(self, clients: Iterable[int]) -> None:
        """Remember the lines of these clients before they change."""
        for client in clients:
            self._settled.setdefault(client, replace(self[client]))

    def asked_in(self, round: int) -> set[int]:
        """The clients that were asked to train in this round."""
        return {client for client, known in self._lines.items() if known.asked_round == round}

    def settle(self) -> None:
        """Say that the round is whole: what ``known`` returns is of this moment, until the next call."""
        self.changed |= self._settled.keys()
        self._settled.clear()

    def known(self, client: int) -> list[int | None]:
        """The line of a client at the last ``settle``."""
        return list(astuple(self._settled.get(client) or self[client]))

    @property
    def met(self) -> list[int]:
        """The clients that were ever sampled, ascending."""
        return sorted(self._lines)

    def restore(self, client: int, known: list[int | None], *, keeps_state: bool) -> None:
        """Put back a line of ``known``.

        Args:
            keeps_state: whether the client has the state that it had then; else it holds no topology and no weights.
        """
        self._lines[client] = Known(*known)  # type: ignore[arg-type]
        if not keeps_state:
            self._lines[client].lost()
