"""The line of the server's ledger for each client."""

from dataclasses import dataclass


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
    """

    topology: int | None
    accepted_round: int = 0
    weights_round: int = 0
    sent_round: int = 0
    sent_bytes: int = 0
    asked_round: int = 0

    def lost(self) -> None:
        """Forget what the client holds, because it failed or moved to a new node."""
        self.topology, self.weights_round = None, 0
