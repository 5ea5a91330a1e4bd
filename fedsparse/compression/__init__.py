"""Update -> payload -> update: which coordinates travel, how precisely, in how few bytes; what becomes of the rest."""

from fedsparse.compression.codec import COMPRESSORS, FACTORIZATIONS, NonFiniteError, UpdateCodec
from fedsparse.compression.presets import PRESETS, resolve
from fedsparse.compression.state import ClientState
from fedsparse.compression.values import VALUES
from fedsparse.compression.wire import PayloadError, SparseUpdate, decode

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
