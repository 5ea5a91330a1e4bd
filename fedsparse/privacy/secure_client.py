"""A client's side of secure aggregation; see ``secure_sum``."""

import hashlib
import os
from contextlib import suppress

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedsparse.privacy.masked_payload import add_mask
from fedsparse.privacy.secure_sum import (
    KEY,
    SEALED,
    UNREADABLE,
    SecureSumError,
    Session,
    agree,
    commitment,
    private_key,
    public_of,
    read_rows,
)
from fedsparse.privacy.shamir import SHARE_BYTES, split

NONCE = bytes(12)
"""The nonce may be the same everywhere, because each key encrypts one message."""


class Client:
    """One client's side.

    Args:
        session: the sum that the client takes part in.
        me: the client's number, from 0, below 2^32.
        memory: what the client remembers from one message to the next; empty before the first. It must be
            readable by this client alone, and be deleted when the round is over.
    """

    def __init__(self, session: Session, me: int, memory: dict[str, bytes]) -> None:
        self.session, self.me, self.memory = session, me, memory

    def keys(self) -> bytes:
        """Round 0: new public keys, one for encryption and one for masks."""
        self.memory.clear()
        self.memory |= {"session": self.session.name.encode(), "cipher": os.urandom(KEY), "mask": os.urandom(KEY)}
        return self._public_keys()

    def shares(self, table: bytes) -> bytes:
        """Round 1: the hash of the own mask's seed, then the shares for each other client, by ascending number.

        Args:
            table: all clients' numbers and keys.
        """
        self._expect("cipher", without="seed")
        keys = read_rows(table, 2 * KEY)
        if keys.get(self.me) != self._public_keys() or len({*keys.values()}) < len(keys):
            raise SecureSumError("the table of keys has not this client's, or has the same keys twice")
        self.session.check_enough(len(keys))
        seed, mask, places = os.urandom(KEY), self.memory["mask"], [client + 1 for client in keys]
        of_seed, of_mask = (split(int.from_bytes(s), self.session.threshold, places) for s in (seed, mask))
        plain = {
            client: a.to_bytes(SHARE_BYTES) + b.to_bytes(SHARE_BYTES)
            for client, a, b in zip(keys, of_seed, of_mask, strict=True)
        }
        self.memory |= {"seed": seed, "table": table, "own": plain[self.me]}
        private = private_key(self.memory["cipher"])
        sealed = [
            self._cipher(private, keys[c], self.me, c).encrypt(NONCE, plain[c], None) for c in keys if c != self.me
        ]
        return commitment(seed) + b"".join(sealed)

    def mask(self, sealed: bytes, words: np.ndarray) -> None:
        """Round 2: add this client's masks.

        Args:
            sealed: the numbers and encrypted shares of the other clients that shared theirs.
            words: uint32, the vector, changed in place.
        """
        self._expect("seed")
        keys, shares = read_rows(self.memory["table"], 2 * KEY), read_rows(sealed, SEALED)
        if not shares.keys() <= keys.keys() - {self.me}:
            raise SecureSumError("there are shares of clients that sent no keys")
        self.session.check_enough(len(shares) + 1)
        vector = hashlib.sha256(words.data).digest()
        if self.memory.get("vector", vector) != vector or self.memory.get("sealed", sealed) != sealed:
            # The difference of two masked vectors would be the difference of the vectors.
            raise SecureSumError("the same masks were asked for another vector or another cohort")
        self.memory |= {"vector": vector, "sealed": sealed}
        add_mask(words, self.memory["seed"], 1)
        private = private_key(self.memory["mask"])
        for client in shares:
            key = agree(private, keys[client][KEY:], self.session.mask_purpose(self.me, client))
            add_mask(words, key, 1 if self.me < client else -1)

    def reveal(self, survivors: bytes) -> bytes:
        """Round 4: for each client that shared, by ascending number, this client's share of what the sum needs.

        That is the share of the seed of a client in the sum, and the share of the key of a client that dropped out. A
        client that knew both could be unmasked, so that this client answers once, and forgets everything. In place of a
        share that cannot be decrypted is ``UNREADABLE``.

        Args:
            survivors: the numbers of the clients in the sum.
        """
        self._expect("sealed")
        keys, shares = read_rows(self.memory["table"], 2 * KEY), read_rows(self.memory["sealed"], SEALED)
        alive = read_rows(survivors, 0).keys()
        if not {self.me} <= alive <= {self.me, *shares}:
            raise SecureSumError("the sum has not this client's vector, or has vectors of clients that did not share")
        self.session.check_enough(len(alive))
        private = private_key(self.memory["cipher"])
        plain = {self.me: self.memory["own"]} | dict.fromkeys(shares, 2 * UNREADABLE)
        for client, sealed in shares.items():
            with suppress(InvalidTag):
                plain[client] = self._cipher(private, keys[client], client, self.me).decrypt(NONCE, sealed, None)
        self.memory.clear()
        return b"".join(plain[c][:SHARE_BYTES] if c in alive else plain[c][SHARE_BYTES:] for c in sorted(plain))

    def _expect(self, present: str, without: str = "") -> None:
        known = self.memory.get("session") == self.session.name.encode()
        if not known or present not in self.memory or without in self.memory:
            raise SecureSumError(f"this client is not at this point of the secure sum {self.session.name}")

    def _public_keys(self) -> bytes:
        return public_of(self.memory["cipher"]) + public_of(self.memory["mask"])

    def _cipher(self, private: X25519PrivateKey, keys: bytes, sender: int, receiver: int) -> ChaCha20Poly1305:
        purpose = f"{self.session.name} shares from {sender} to {receiver}"
        return ChaCha20Poly1305(agree(private, keys[:KEY], purpose))
