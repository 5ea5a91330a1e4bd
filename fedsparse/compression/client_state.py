"""The compression state of one client between rounds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedsparse.compression.arrays import Array

Flat = dict[str, Array | bytes | int]


@dataclass
class ClientState:
    """The compression state of one client.

    Attributes:
        residual: float32, shape ``(layout.parameters,)``: the sum that was not sent yet (error feedback); None for no
            residual. Between rounds it may be bfloat16, as uint16.
        memory: the arrays that the compressor keeps, by name, such as ``thresholds`` and ``momentum``. float32.
        payload: the last payload sent, until ``UpdateCodec.settle`` is told whether the server accepted it; else empty.
            Always empty without error feedback.
        sent_round: the last round in which a payload was sent; 0 for none.
        topology: bits of the mask (``np.packbits``) of the weights that the arrays hold; empty when they hold all.
        shape: names the network that the arrays are about; empty for that of the settings.
    """

    residual: Array | None = None
    memory: dict[str, Array] = field(default_factory=dict)
    payload: bytes = b""
    sent_round: int = 0
    topology: bytes = b""
    shape: bytes = b""

    def to_dict(self) -> Flat:
        """A flat dict of arrays, bytes and integers. Arrays are not copied: store them before the next encode."""
        flat: Flat = {f"memory/{name}": array for name, array in self.memory.items()}
        if self.residual is not None:
            flat["residual"] = self.residual
        if self.payload:
            flat["payload"] = self.payload
        if self.sent_round:
            flat["sent_round"] = self.sent_round
        if self.topology:
            flat["topology"] = self.topology
        if self.shape:
            flat["shape"] = self.shape
        return flat

    @classmethod
    def from_dict(cls, flat: Mapping[str, Array | bytes | int]) -> "ClientState":
        """The inverse of :meth:`to_dict`. Arrays may be read-only views, because they are never copied or written to.

        Raises:
            ValueError: a name or a type that :meth:`to_dict` does not give.
        """
        state = cls()
        for key, value in flat.items():
            if key.startswith("memory/") and isinstance(value, Array):
                state.memory[key.removeprefix("memory/")] = value
            elif key == "residual" and isinstance(value, Array):
                state.residual = value
            elif key in ("payload", "topology", "shape") and isinstance(value, bytes):
                setattr(state, key, value)
            elif key == "sent_round" and isinstance(value, int):
                state.sent_round = value
            else:
                raise ValueError(f"client state has no {key!r} of type {type(value).__name__}")
        return state
