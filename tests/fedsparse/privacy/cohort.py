"""A cohort that plays secure aggregation in this process, with clients that drop out after any phase."""

from collections.abc import Callable, Sequence

import numpy as np

from fedsparse.privacy.secure_client import Client
from fedsparse.privacy.secure_server import Server
from fedsparse.privacy.secure_sum import SecureSumError, Session

PHASES = ("keys", "shares", "words", "answer")

Change = Callable[[str, int, bytes], bytes]


def honest(phase: str, client: int, message: bytes) -> bytes:
    return message


def vectors(clients: int, size: int, seed: int = 0) -> dict[int, np.ndarray]:
    """Whole numbers of 16 bits, as words."""
    rng = np.random.default_rng(seed)
    return {c: rng.integers(-(2**15), 2**15, size, np.int32).view(np.uint32) for c in range(clients)}


class Cohort:
    """Plays a sum of ``vectors``.

    Args:
        lost: for each phase, the clients whose message of this phase does not arrive.
        change: what becomes of a client's message on its way to the server, in the phases of ``PHASES`` but "words".

    Attributes:
        members: the clients.
        server: what it received.
        masked: what the clients sent in place of their vectors.
        refused: the clients that sent or were sent something wrong, with the reason.
    """

    def __init__(
        self, vectors: dict[int, np.ndarray], lost: dict[str, Sequence[int]] | None = None, change: Change = honest
    ) -> None:
        self.vectors, self.change, lost = vectors, change, lost or {}
        self.session = Session("run/1/1", -(-2 * len(vectors) // 3))
        self.members = {client: Client(self.session, client, {}) for client in vectors}
        self.server, self.masked = Server(self.session, len(vectors[0])), dict[int, np.ndarray]()
        self.gone, self.lost, self.refused = set[int](), lost, dict[int, str]()

    def play(self) -> np.ndarray:
        """The sum that the server computes."""
        self.play_until_masked()
        self.ask("answer", lambda c: self.members[c].reveal(self.server.survivors_table), self.server.take_answer)
        return self.server.total()

    def play_until_masked(self) -> None:
        server, members = self.server, self.members
        self.ask("keys", lambda c: members[c].keys(), server.take_keys)
        self.ask("shares", lambda c: members[c].shares(server.table), server.take_shares)
        self.ask("words", self.masked_vector, lambda c, words: server.take_words(c, np.frombuffer(words, np.uint32)))

    def ask(self, phase: str, ask: Callable[[int], bytes], take: Callable[[int, bytes], None]) -> None:
        """A phase, in which a client that sends or is sent something wrong drops out."""
        for client in sorted(self.members.keys() - self.gone):
            try:
                reply = ask(client)
                if client not in self.lost.get(phase, ()):
                    take(client, self.change(phase, client, reply))
                    continue
            except SecureSumError as error:
                self.refused[client] = str(error)
            self.gone.add(client)

    def masked_vector(self, client: int) -> bytes:
        words = self.vectors[client].copy()
        self.members[client].mask(self.server.shares_for(client), words)
        self.masked[client] = words
        return words.tobytes()

    def plain_sum(self) -> np.ndarray:
        """The sum of the vectors that arrived."""
        return sum(self.vectors[c] for c in self.server.survivors)  # type: ignore[return-value]
