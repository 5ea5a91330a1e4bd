"""Update -> payload -> update: which coordinates travel, how precisely, in how few bytes; what becomes of the rest."""

from fedsparse.compression.client_state import ClientState
from fedsparse.compression.codec import COMPRESSORS, FACTORIZATIONS, NonFiniteError, UpdateCodec
from fedsparse.compression.values import VALUES
from fedsparse.compression.wire import PayloadError, SparseUpdate, decode
from fedsparse.config.presets import PRESETS, resolve

__all__ = [
    "COMPRESSORS",
    "FACTORIZATIONS",
    "PRESETS",
    "VALUES",
    "ClientState",
    "NonFiniteError",
    "PayloadError",
    "SparseUpdate",
    "UpdateCodec",
    "decode",
    "resolve",
]
