"""Secure aggregation: the server learns the sum of a cohort's vectors, and of each vector nothing.

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, figure 4, for a
server that is honest but curious, and for clients that drop out at any moment. The rounds of the figure are here

    0  Client.keys     two public keys
    1  Client.shares   shares of the mask's private key and of the own mask's seed, encrypted for each other client
    2  Client.mask     the vector plus masks, of which those between two clients cancel in the sum
    4  Client.reveal   shares of the seeds of clients in the sum, and of the keys of clients that dropped out after 1

Left out is what figure 4 adds against a server that breaks the protocol: signatures of the keys, and round 3, in which
clients agree on who is in the sum. Such a server could tell different clients different things.

Beyond the paper: a client sends a hash of its seed, so that the server finds wrong shares. With one more answer than
the threshold, the wrong shares of one client do no harm. A client that cannot decrypt a share says so in its answer,
where the paper's client gives up: it tells its other shares as before, and of no client both.

A message to or from a client is plain bytes of a known length. All keys and secrets come from the operating system, and
the sum does not depend on them. This file has what both sides use.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedsparse.compression import PayloadError
from fedsparse.privacy.shamir import SHARE_BYTES

KEY, ID = 32, 4
"""Bytes of a key, a seed or a hash; and of a client's number."""
SEALED = 2 * SHARE_BYTES + 16
"""Bytes of the two encrypted shares for one client, with their authentication tag."""
UNREADABLE = bytes([255]) * SHARE_BYTES
"""In place of a share that its receiver cannot decrypt; no number of the field has these bytes."""


class SecureSumError(PayloadError):
    """A message of secure aggregation is not accepted; the text says in one line why.

    Attributes:
        dealers: the clients whose shares are wrong.
    """

    def __init__(self, message: str, dealers: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.dealers = dealers


@dataclass(frozen=True)
class Session:
    """One sum.

    Attributes:
        name: of the run, the round and the attempt. Every key is bound to it.
        threshold: how many clients it takes to unmask the sum. Fewer, together with the server, learn no more of
            another client's vector than the sum says.
    """

    name: str
    threshold: int

    def check_enough(self, clients: int) -> None:
        """Check that so many clients can unmask a sum.

        Raises:
            SecureSumError: they are fewer than the threshold.
        """
        if clients < self.threshold:
            raise SecureSumError(f"{clients} clients are too few for a secure sum; it takes {self.threshold}")

    def mask_purpose(self, a: int, b: int) -> str:
        """The purpose of the key of the mask between two clients."""
        return f"{self.name} mask {min(a, b)} and {max(a, b)}"


def private_key(secret: bytes) -> X25519PrivateKey:
    """The X25519 key of 32 secret bytes."""
    return X25519PrivateKey.from_private_bytes(secret)


def public_of(secret: bytes) -> bytes:
    """The public key of 32 secret bytes."""
    return private_key(secret).public_key().public_bytes_raw()


def agree(private: X25519PrivateKey, public: bytes, purpose: str) -> bytes:
    """The key of 32 bytes for one purpose, which the owner of one key pair shares with the owner of another.

    Raises:
        SecureSumError: with this public key there is nothing to agree on.
    """
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise SecureSumError("a public key is not valid") from None
    return HKDF(SHA256(), KEY, salt=None, info=purpose.encode()).derive(shared)


def commitment(seed: bytes) -> bytes:
    """A hash of a seed, by which the server knows the seed when it sees it."""
    return hashlib.sha256(b"seed" + seed).digest()


def number(client: int) -> bytes:
    """A client's number as bytes."""
    return client.to_bytes(ID, "little")


def cut(data: bytes, width: int) -> list[bytes]:
    """Pieces of ``width`` bytes."""
    return [data[at : at + width] for at in range(0, len(data), width)]


def read_rows(data: bytes, width: int) -> dict[int, bytes]:
    """A table of clients' numbers, each with ``width`` bytes.

    Raises:
        SecureSumError: a row is cut off, or a client has two.
    """
    rows = cut(data, ID + width)
    table = {int.from_bytes(row[:ID], "little"): row[ID:] for row in rows}
    if len(data) % (ID + width) or len(table) < len(rows):
        raise SecureSumError(f"a table of {len(data)} bytes has a row that is cut off, or a client twice")
    return table


def check_length(data: bytes, wanted: int) -> None:
    """Check the length of a message.

    Raises:
        SecureSumError: it is another.
    """
    if len(data) != wanted:
        raise SecureSumError(f"a message of secure aggregation has {len(data)} bytes, not {wanted}")
