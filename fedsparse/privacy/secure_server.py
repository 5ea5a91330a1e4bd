"""The server's side of secure aggregation; see ``secure_sum``."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedsparse.privacy.masked_payload import add_mask
from fedsparse.privacy.secure_sum import (
    KEY,
    SEALED,
    UNREADABLE,
    SecureSumError,
    Session,
    agree,
    check_length,
    commitment,
    cut,
    number,
    private_key,
    public_of,
)
from fedsparse.privacy.shamir import PRIME, SHARE_BYTES, combine, factors_at_zero

PROBE = X25519PrivateKey.generate()


class Server:
    """The server's side.

    Args:
        session: the sum.
        size: words of a vector.

    Attributes:
        keys: the public keys of the clients that sent some.
        sealed: of each client that shared, the encrypted shares by receiver.
        survivors: the clients whose vectors are in the sum.
        answers: of each client that helped to unmask, the shares that it could decrypt, by owner.
    """

    def __init__(self, session: Session, size: int) -> None:
        self.session = session
        self.keys: dict[int, bytes] = {}
        self.sealed: dict[int, dict[int, bytes]] = {}
        self.survivors: list[int] = []
        self.answers: dict[int, dict[int, int]] = {}
        self._commitments: dict[int, bytes] = {}
        self._sum = np.zeros(size, np.uint32)
        self._factors = lru_cache(lambda *holders: factors_at_zero([holder + 1 for holder in holders]))

    def take_keys(self, client: int, keys: bytes) -> None:
        """Round 0. Clients come by ascending number."""
        check_length(keys, 2 * KEY)
        if keys in self.keys.values():
            raise SecureSumError("its public keys are another client's")
        for public in cut(keys, KEY):
            agree(PROBE, public, "")  # raises for a key with which the other clients could agree on nothing
        self.keys[client] = keys

    @property
    def table(self) -> bytes:
        """What every client is sent in round 1."""
        return b"".join(number(client) + keys for client, keys in self.keys.items())

    def take_shares(self, client: int, data: bytes) -> None:
        """Round 1. Clients come by ascending number."""
        others = [c for c in self.keys if c != client]
        check_length(data, KEY + SEALED * len(others))
        self._commitments[client] = data[:KEY]
        self.sealed[client] = dict(zip(others, cut(data[KEY:], SEALED), strict=True))

    def shares_for(self, client: int) -> bytes:
        """What a client is sent in round 2."""
        return b"".join(number(c) + sealed[client] for c, sealed in self.sealed.items() if c != client)

    def take_words(self, client: int, words: np.ndarray) -> None:
        """Round 2: a masked vector, uint32, shape ``(size,)``."""
        self._sum += words
        self.survivors.append(client)

    @property
    def survivors_table(self) -> bytes:
        """What every client in the sum is sent in round 4."""
        return b"".join(map(number, self.survivors))

    def take_answer(self, client: int, data: bytes) -> None:
        """Round 4."""
        owners = list(self.sealed)
        check_length(data, SHARE_BYTES * len(owners))
        pairs = zip(owners, cut(data, SHARE_BYTES), strict=True)
        shares = {owner: int.from_bytes(share) for owner, share in pairs if share != UNREADABLE}
        if max(shares.values(), default=0) >= PRIME:
            raise SecureSumError("a share is no number of the field")
        self.answers[client] = shares

    def total(self) -> np.ndarray:
        """The sum of the survivors' vectors, uint32, shape ``(size,)``, modulo 2^32 as they were. Call it once.

        Raises:
            SecureSumError: too few clients helped, or the shares of some clients do not fit together.
        """
        self.session.check_enough(len(self.answers))
        for client, secret in self._secrets().items():
            if client in self.survivors:
                add_mask(self._sum, secret, -1)
                continue
            private = private_key(secret)
            for other in self.survivors:
                key = agree(private, self.keys[other][KEY:], self.session.mask_purpose(client, other))
                add_mask(self._sum, key, -1 if other < client else 1)
        return self._sum

    def _secrets(self) -> dict[int, bytes]:
        """Of each client that shared, its seed if it is in the sum, and else its private key."""
        found, dealers = dict[int, bytes](), list[int]()
        for client in self.sealed:
            if client in self.survivors:
                secret = self._recover(client, commitment, self._commitments[client])
            else:
                secret = self._recover(client, public_of, self.keys[client][KEY:])
            if secret:
                found[client] = secret
                continue
            dealers.append(client)
            if len(dealers) > len(self.sealed) / 3:  # then the answers may be wrong, and not what was dealt
                raise SecureSumError("the shares of many clients do not fit together")
        if dealers:
            named = f"client{'s' * (len(dealers) > 1)} {', '.join(map(str, dealers))}"
            raise SecureSumError(f"the shares of {named} do not fit together", dealers)
        return found

    def _recover(self, owner: int, known_by: Callable[[bytes], bytes], known: bytes) -> bytes | None:
        """The secret of a client, from the first ``threshold`` shares in a row that give the one that is known.

        Args:
            known_by: what the server knew of the secret before: a function of it.
            known: the value of this function.

        Returns:
            None when no such shares give it.
        """
        able = [holder for holder, shares in self.answers.items() if owner in shares]
        for start in range(len(able) if len(able) >= self.session.threshold else 0):
            holders = (able[start:] + able[:start])[: self.session.threshold]
            secret = combine(self._factors(*holders), [self.answers[holder][owner] for holder in holders])
            if secret < 1 << 8 * KEY and known_by(secret.to_bytes(KEY)) == known:
                return secret.to_bytes(KEY)
        return None
