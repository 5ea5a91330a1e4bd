"""Update -> payload -> update: selection of coordinates, value coding, index coding, and error feedback."""

from fedsparse.compression.client_state import ClientState
from fedsparse.compression.codec import UpdateCodec
from fedsparse.compression.finite import NonFiniteError
from fedsparse.compression.sparse_update import SparseUpdate
from fedsparse.compression.wire import PayloadError, decode

__all__ = ["ClientState", "NonFiniteError", "PayloadError", "SparseUpdate", "UpdateCodec", "decode"]
