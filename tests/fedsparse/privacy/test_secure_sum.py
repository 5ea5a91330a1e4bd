"""The sum is exact whoever drops out, and what the server receives says nothing else."""

from contextlib import suppress

import numpy as np
import pytest
from scipy.stats import chisquare

from fedsparse.privacy.secure_client import Client
from fedsparse.privacy.secure_sum import ID, KEY, SEALED, SecureSumError, Session
from tests.fedsparse.privacy.cohort import PHASES, Change, Cohort, vectors


@pytest.mark.parametrize("phase", PHASES)
def test_the_sum_is_exact_when_two_of_ten_clients_drop_out_at_any_phase(phase: str) -> None:
    cohort = Cohort(vectors(10, 1000), lost={phase: (3, 8)})
    total = cohort.play()
    assert len(cohort.server.survivors) == (10 if phase == "answer" else 8)
    np.testing.assert_array_equal(total, cohort.plain_sum())


def test_the_sum_is_exact_when_clients_drop_out_at_every_phase() -> None:
    cohort = Cohort(vectors(20, 1000), lost={"keys": (0, 1), "shares": (5,), "words": (9, 19), "answer": (2,)})
    np.testing.assert_array_equal(cohort.play(), cohort.plain_sum())


@pytest.mark.parametrize("phase", PHASES)
def test_there_is_no_sum_of_fewer_clients_than_the_threshold(phase: str) -> None:
    cohort = Cohort(vectors(10, 10), lost={phase: (0, 1, 2, 3)})
    with pytest.raises(SecureSumError, match="too few for a secure sum; it takes 7"):
        cohort.play()
    if phase != "answer":
        assert set(cohort.refused.values()) == {"6 clients are too few for a secure sum; it takes 7"}


def test_what_the_server_receives_of_a_client_is_uniform_whatever_its_vector_is() -> None:
    for value in (0, 12345):
        constant = {c: np.full(50_000, value, np.uint32) for c in range(4)}
        cohort = Cohort(constant)
        cohort.play()
        for words in cohort.masked.values():
            for shift in (0, 8, 16, 24):
                counts = np.bincount(words >> shift & 255, minlength=256)
                assert chisquare(counts).pvalue > 1e-6


def test_masks_are_new_in_every_sum() -> None:
    first, second = (Cohort(vectors(3, 1000)) for _ in range(2))
    assert (first.play() == second.play()).all()
    assert (first.masked[0] != second.masked[0]).mean() > 0.99


def test_all_masked_vectors_together_are_not_yet_the_sum() -> None:
    """Without the own masks, a late vector of a client that was taken for dropped out would be readable."""
    cohort = Cohort(vectors(3, 1000))
    total = cohort.play()
    assert (sum(cohort.masked.values()) != total).mean() > 0.99


def test_a_client_answers_once_and_forgets_everything() -> None:
    cohort = Cohort(vectors(4, 10))
    cohort.play()
    assert all(member.memory == {} for member in cohort.members.values())
    with pytest.raises(SecureSumError, match="is not at this point"):
        cohort.members[0].reveal(cohort.server.survivors_table)


def test_a_client_masks_no_second_vector_with_the_same_masks() -> None:
    cohort = Cohort(vectors(3, 10))
    cohort.play_until_masked()
    sealed, words = cohort.server.shares_for(0), cohort.vectors[0].copy()
    cohort.members[0].mask(sealed, words)  # the same again is the same message
    np.testing.assert_array_equal(words, cohort.masked[0])
    with pytest.raises(SecureSumError, match="for another vector or another cohort"):
        cohort.members[0].mask(sealed, cohort.vectors[1].copy())


@pytest.mark.parametrize("table", ["own vector missing", "a stranger", "a client twice", "cut off", "too few"])
def test_a_client_unmasks_no_sum_that_it_should_not(table: str) -> None:
    cohort = Cohort(vectors(6, 10))
    cohort.play_until_masked()
    honest = cohort.server.survivors_table
    changed = {
        "own vector missing": honest[ID:],
        "a stranger": honest + (99).to_bytes(ID, "little"),
        "a client twice": honest + honest[:ID],
        "cut off": honest[:-1],
        "too few": honest[: 3 * ID],
    }
    with pytest.raises(SecureSumError):
        cohort.members[0].reveal(changed[table])


def test_keys_of_another_session_are_refused() -> None:
    cohort = Cohort(vectors(3, 10))
    cohort.play_until_masked()
    later = Client(Session("run/2/1", 2), 0, cohort.members[0].memory)
    with pytest.raises(SecureSumError, match=r"not at this point of the secure sum run/2/1"):
        later.reveal(cohort.server.survivors_table)


def wrong_shares(*liars: int) -> Change:
    def change(phase: str, client: int, message: bytes) -> bytes:
        return bytes(len(message)) if phase == "answer" and client in liars else message

    return change


def test_wrong_shares_of_one_client_do_no_harm() -> None:
    cohort = Cohort(vectors(10, 10), lost={"words": (4, 5)}, change=wrong_shares(2))
    np.testing.assert_array_equal(cohort.play(), cohort.plain_sum())


def test_wrong_shares_of_too_many_clients_are_found_and_no_client_is_named() -> None:
    with pytest.raises(SecureSumError, match="the shares of many clients do not fit together") as caught:
        Cohort(vectors(10, 10), change=wrong_shares(0, 2, 4, 6, 8)).play()
    assert not caught.value.dealers


def dealt_wrong(start: int, stop: int | None, *dealers: int) -> Change:
    """Some clients' messages of round 1 are wrong in these bytes."""

    def change(phase: str, client: int, message: bytes) -> bytes:
        if phase != "shares" or client not in dealers:
            return message
        end = len(message) if stop is None else stop
        return message[:start] + bytes(byte ^ 1 for byte in message[start:end]) + message[end:]

    return change


@pytest.mark.parametrize("wrong", [(0, KEY), (KEY, None)], ids=["another seed", "unreadable shares"])
@pytest.mark.parametrize("lost", [(), (3, 5)], ids=["in the sum", "dropped out"])
def test_clients_that_deal_wrong_shares_are_named(wrong: tuple[int, int | None], lost: tuple[int, ...]) -> None:
    cohort = Cohort(vectors(10, 10), lost={"words": lost}, change=dealt_wrong(*wrong, 3, 8))
    dealers = [8] if lost and wrong == (0, KEY) else [3, 8]  # the seed of a client that dropped out is not needed
    with pytest.raises(SecureSumError, match=rf"shares of clients? {', '.join(map(str, dealers))} do not") as caught:
        cohort.play()
    assert caught.value.dealers == dealers
    assert not cohort.refused


def test_shares_that_few_of_their_receivers_can_read_do_no_harm() -> None:
    cohort = Cohort(vectors(10, 10), lost={"words": (4,)}, change=dealt_wrong(KEY, KEY + 2 * SEALED, 3, 4))
    np.testing.assert_array_equal(cohort.play(), cohort.plain_sum())
    assert not cohort.refused


@pytest.mark.parametrize("key", [bytes(KEY), (1).to_bytes(KEY, "little")])
def test_a_public_key_with_which_others_agree_on_nothing_is_refused(key: bytes) -> None:
    def change(phase: str, client: int, message: bytes) -> bytes:
        return message[:KEY] + key if (phase, client) == ("keys", 1) else message

    cohort = Cohort(vectors(4, 10), change=change)
    np.testing.assert_array_equal(cohort.play(), cohort.plain_sum())
    assert cohort.refused == {1: "a public key is not valid"}


def test_public_keys_of_another_client_are_refused() -> None:
    sent: dict[int, bytes] = {}

    def change(phase: str, client: int, message: bytes) -> bytes:
        return sent.setdefault(1 if client == 2 else client, message) if phase == "keys" else message

    cohort = Cohort(vectors(4, 10), change=change)
    np.testing.assert_array_equal(cohort.play(), cohort.plain_sum())
    assert cohort.refused == {2: "its public keys are another client's"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("phase", ["keys", "shares", "answer"])
@pytest.mark.parametrize("damage", ["cut off", "longer", "flipped"])
def test_damaged_messages_cost_a_turn_or_the_sum_and_never_make_it_wrong(phase: str, damage: str) -> None:
    rng = np.random.default_rng(0)

    def change(of: str, client: int, message: bytes) -> bytes:
        if (of, client) != (phase, 2):
            return message
        bad = bytearray(message)
        if damage == "cut off":
            del bad[rng.integers(len(bad)) :]
        elif damage == "longer":
            bad += rng.bytes(5)
        else:
            bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        return bytes(bad)

    sums = 0
    for _ in range(20):
        cohort = Cohort(vectors(4, 5), change=change)
        with suppress(SecureSumError):
            np.testing.assert_array_equal(cohort.play(), cohort.plain_sum())
            sums += 1
    assert sums == 20 or damage == "flipped"
