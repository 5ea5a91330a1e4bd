"""The server sends its whole weights, or compressed changes of the weights that clients hold."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from flwr.app import Array, ArrayRecord
from torch import Tensor, from_numpy

from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.compression.changes import Changes
from fedsparse.config import Config
from fedsparse.engine.records import payload_array
from fedsparse.quantisation.few_bits_broadcast import few_bits_payload
from fedsparse.seeds import derive_seed
from fedsparse.sparsity.compact import Compact
from fedsparse.vector import FlatModel, Layout


class Downlink:
    """Sends a client the shorter of the changes that it misses and the whole weights.

    Attributes:
        round: the round of the weights v that clients hold: see ``fedsparse.compression.changes``.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.round = 0
        self._changes: Changes | None = None
        self.release()

    def release(self) -> None:
        """Free the memory of payloads that are no longer needed."""
        self._of_round: Callable[[Compact], ArrayRecord] = lambda compact: ArrayRecord()

    def advance(self, weights: Tensor, layout: Layout, round: int) -> Tensor:
        """The weights v that clients of ``round`` train from, given the server's: float32, shape ``(layout.size,)``.

        A second call for a round returns the same v. After a change of the layout, for instance by a new topology,
        every client is sent the whole weights once.

        Raises:
            NonFiniteError: NaN or infinity in the weights.
        """
        if self.config.downlink_is_whole:
            return weights
        changes = self._changes
        if changes is None or layout.fingerprint != changes.layout.fingerprint:
            changes = self._changes = Changes(layout, weights.numpy().copy(), round, self.config.downlink_compression())
        elif round > self.round:
            seed = derive_seed(self.config.seed, "compress", round=round, partition_id=self.config.clients)
            changes.advance(weights.numpy(), round, seed)
        self.round = round
        return from_numpy(changes.known)

    def broadcast(self, weights: Tensor, model: FlatModel, compact: Compact, round: int) -> ArrayRecord:
        """The payload of the existing ``weights``, float32 ``(layout.size,)``, for clients of ``round`` that hold none.

        Args:
            weights: unchanged while messages of this round are made, which may need parts of them.
            model: with quantised layers, where these are sent; it holds ``weights`` afterwards.

        Raises:
            NonFiniteError: NaN or infinity in the weights.
        """
        self._of_round = cache(partial(self._record, weights, model, round))
        return self._of_round(compact)

    def _record(self, weights: Tensor, model: FlatModel, round: int, compact: Compact) -> ArrayRecord:
        if self.config.sends_few_bits:
            payload = few_bits_payload(model, weights, compact, round)
        else:
            known = self.advance(compact.gather(weights), compact.layout, round)
            payload, _ = UpdateCodec(compact.layout, "none").encode(known, ClientState(), round=round, seed=0)
        return ArrayRecord({"weights": payload_array(payload, compact.layout)})

    def state_dict(self) -> dict[str, Any]:
        """The weights v, the changes that led to them, and the memory of their compressor."""
        return {} if self._changes is None else self._changes.state_dict() | {"round": self.round}

    def load_state_dict(self, state: dict[str, Any], layout: Layout) -> None:
        """Restore a state that ``state_dict`` returned, for weights of this layout."""
        if state:
            known = state["known"].numpy().copy()
            self._changes = Changes(layout, known, state["round"], self.config.downlink_compression())
            self._changes.load_state_dict(state)
            self.round = state["round"]

    def arrays_for(self, held: int, whole: ArrayRecord, part: Compact | None = None) -> ArrayRecord:
        """The arrays from which a client learns v: the changes since the weights of round ``held``, or ``whole``.

        Args:
            held: the round of the weights that the client surely holds; 0 when the server cannot know it.
            part: the weights that the client trains; None for all. The payload of a part is made once a round.
        """
        if part:
            return self._of_round(part)
        arrays = changes_since(held, self._changes) if self._changes else None
        return min(whole, arrays, key=_length) if arrays else whole


def changes_since(held: int, changes: Changes) -> ArrayRecord | None:
    """The arrays that lead a client from the weights of round ``held`` to the present ones; None where some are lost.

    Args:
        held: 0 when the server cannot know it.
    """
    missing = changes.since(held)
    if missing is None:
        return None
    arrays = {f"change-{r}": payload_array(payload, changes.layout) for r, payload in missing.items()}
    return ArrayRecord(arrays | {"hash": Array("uint64", (), "little-endian", changes.hash)})


def _length(arrays: ArrayRecord) -> int:
    return sum(len(array.data) for array in arrays.values())
