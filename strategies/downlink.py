"""What the server sends: its weights whole, or the compressed changes of what clients know of them.

Tang, Yu, Lian, Zhang and Liu, "DoubleSqueeze", ICML 2019 (compression both ways, error feedback on the server);
Philippenko and Dieuleveut, "Preserved central model for faster bidirectional compression", NeurIPS 2021 (MCM): the
server keeps its exact weights w beside what all clients can know, v, sends C(w - v), and both sides add that to v. What
one change leaves out is part of the next difference: this is the error feedback.
"""

import numpy as np
import torch
import xxhash
from flwr.app import Array, ArrayRecord
from torch import Tensor

from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import Config
from fedsparse.engine.records import payload_array
from fedsparse.seeds import derive_seed
from fedsparse.vector import Layout


class Downlink:
    """Remembers what each client is known to hold, and chooses the shorter way to bring it up to date.

    A client holds a round's weights only once a reply of its has arrived. One whose reply is missing is sent the same
    changes again, and skips those that it has; one that replied with an error may hold anything, and gets all.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.layout: Layout | None = None
        self.known: np.ndarray | None = None  # v: float32, shape (layout.size,)
        self.round = 0
        self.changes: dict[int, bytes] = {}  # the payloads that made v of each round from that of the round before
        self._sent: dict[int, int] = {}  # client -> round that it was sent last
        self._held: dict[int, int] = {}  # client -> round that it surely holds

    def advance(self, weights: Tensor, layout: Layout, round: int) -> Tensor:
        """What clients of ``round`` train from, given the server's weights: float32, shape ``(layout.size,)``.

        Asked again for a round, it says the same. With another layout, such as that of another topology, it starts
        anew: everyone gets all once.

        Raises:
            NonFiniteError: NaN or infinity in the weights.
        """
        if self.config.downlink_is_whole:
            return weights
        if self.layout is None or self.known is None or layout.fingerprint != self.layout.fingerprint:
            self.layout, self.known = layout, weights.numpy().copy()
            self.codec, self.state = UpdateCodec(layout, **self.config.downlink_compression()), ClientState()
            self.changes, self._held = {}, {}
        elif round > self.round:
            seed = derive_seed(self.config.seed, "compress", round=round, partition_id=self.config.clients)
            payload, _ = self.codec.encode(weights.numpy() - self.known, self.state, round=round, seed=seed)
            self.codec.decode(payload).add_to(self.known)
            self.changes[round] = payload
            while sum(map(len, self.changes.values())) > 4 * self.layout.size:  # whole weights are shorter
                del self.changes[min(self.changes)]
        self.round = round
        return torch.from_numpy(self.known)

    def arrays_for(self, client: int, whole: ArrayRecord) -> ArrayRecord:
        """What this client needs to know v: the changes since the round that it holds, or ``whole``."""
        base, self._sent[client] = self._held.get(client, 0), self.round
        layout = self.layout
        if layout is None or self.known is None or not base:
            return whole
        missing = {r: payload for r, payload in self.changes.items() if r > base}
        length = sum(map(len, missing.values())) + 8
        if len(missing) < self.round - base or length >= sum(len(array.data) for array in whole.values()):
            return whole
        arrays = {f"change-{r}": payload_array(payload, layout) for r, payload in missing.items()}
        return ArrayRecord(arrays | {"hash": Array("uint64", (), "little-endian", hash_of(self.known))})

    def confirm(self, client: int) -> None:
        """A reply to the last message arrived: the client has what was in it."""
        self._held[client] = self._sent[client]

    def forget(self, client: int) -> None:
        """What this client holds is not known."""
        self._held.pop(client, None)


def hash_of(weights: np.ndarray) -> bytes:
    """Eight bytes by which both sides see that they hold the same weights."""
    return xxhash.xxh3_64_digest(weights.tobytes())
