"""Update -> payload -> update: which coordinates travel, how precisely, in how few bytes, and who keeps the rest."""

from fedsparse.compression.client_state import ClientState
from fedsparse.compression.codec import NonFiniteError, UpdateCodec
from fedsparse.compression.sparse_update import SparseUpdate
from fedsparse.compression.wire import PayloadError, decode

__all__ = ["ClientState", "NonFiniteError", "PayloadError", "SparseUpdate", "UpdateCodec", "decode"]
