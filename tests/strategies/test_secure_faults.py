"""Secure aggregation with clients that spoil sums, values above the limit, and secrets that are left over."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message

from fedsparse.checkpoint import Checkpoints
from fedsparse.compression.fixed import FixedPoint
from fedsparse.config import Config
from fedsparse.engine.state_files import SECRETS
from fedsparse.errors import RunFailed
from fedsparse.privacy.secure_sum import KEY
from fedsparse.strategies.saver import CLIENTS, FOLDER
from fedsparse.strategies.server_app import federate
from tests.strategies.secure_federation import (
    PHASES,
    SECURE,
    SMALL,
    Wire,
    federation,
    lose,
    plain_mean,
    play,
    with_array,
)


@pytest.mark.parametrize("wrong", [slice(KEY), slice(KEY, None)], ids=["another seed", "unreadable shares"])
def test_a_client_that_deals_wrong_shares_is_left_out_and_the_round_goes_on(wrong: slice, tiny_dataset: str) -> None:
    def change(message: Message, reply: Message) -> Message:
        if (message.metadata.message_type, message.metadata.dst_node_id) != (PHASES[1], 3):
            return reply
        data = np.frombuffer(reply.content["arrays"]["secure"].data, np.uint8).copy()
        data[wrong] ^= 1
        return with_array("secure", data.tobytes())(reply)

    strategy, grid = federation(tiny_dataset, change)
    change_of_weights = play(strategy, grid)
    left = set(range(10)) - {3}
    np.testing.assert_allclose(change_of_weights, plain_mean(tiny_dataset, left), atol=2e-5)
    assert {client for client in range(10) if strategy.cohort.ledger[client].accepted_round == 1} == left
    assert strategy.cohort.tally.metrics["refused/payload"] == 1
    told = "client 3: its reply is refused: the shares of client 3 do not fit together"
    assert told in strategy.cohort.tally.failures


def test_a_client_that_was_left_out_may_be_in_every_cohort_of_the_next_round(tiny_dataset: str) -> None:
    lost = lose("train", *range(4, 8))

    def change(message: Message, reply: Message) -> Message | None:
        kind, client = message.metadata.message_type, message.metadata.dst_node_id
        if message.content["task"]["round"] == 1:
            return with_array("secure", bytes(32 + 9 * 82))(reply) if (kind, client) == (PHASES[1], 3) else reply
        return lost(message, reply) if str(message.content["task"]["session"]).endswith("/2/3") else reply

    strategy, grid = federation(tiny_dataset, change)
    play(strategy, grid, rounds=2)
    assert strategy.cohort.tally.metrics["comm/clients"] == 10


@pytest.mark.parametrize("phase", PHASES)
def test_no_second_cohort_is_asked_when_every_client_raises(phase: str, tiny_dataset: str) -> None:
    def change(message: Message, reply: Message) -> Message:
        raises = message.metadata.message_type == phase
        return Message(Error(2, "ValueError: no"), reply_to=message) if raises else reply

    strategy, grid = federation(tiny_dataset, change)
    with pytest.raises(RunFailed, match="round 1: all 10 clients failed; client 0: ValueError: no"):
        play(strategy, grid)
    assert sum(message.metadata.message_type == PHASES[0] for message, _ in grid.seen) == 10


def test_flipped_labels_do_in_a_secure_sum_what_they_do_in_the_open(tiny_dataset: str) -> None:
    attack = {"attack": "label-flip", "attackers": 0.3}
    flipped, honest = play(*federation(tiny_dataset, **attack)), play(*federation(tiny_dataset))
    np.testing.assert_allclose(flipped, plain_mean(tiny_dataset, range(10), **attack), atol=2e-5)
    assert (flipped - honest).abs().max() > 1e-3


@pytest.mark.parametrize(("values", "share"), [([3, -3, 1, 0], 0.5), ([1, -1.4, 0.5, 0], 0), ([], 0)])
def test_a_coding_of_two_bits_counts_the_values_that_it_cuts(values: list[float], share: float) -> None:
    coding = FixedPoint(unit=1.0, bits=2)
    coding.encode(np.array(values, np.float32), np.array([len(values)]), seed=0)
    assert coding.clipped == share


def test_telemetry_says_the_share_of_values_that_the_limit_cuts(tiny_dataset: str) -> None:
    shares = []
    for limit in (1.0, 0.01, 0.001):
        strategy, grid = federation(tiny_dataset, **{"secure-limit": limit})
        play(strategy, grid)
        told = [r.content["metrics"]["compress/clipped"] for m, r in grid.seen if m.metadata.message_type == "train"]
        assert strategy.cohort.tally.metrics["compress/clipped"] == pytest.approx(sum(told) / 10)
        shares.append(strategy.cohort.tally.metrics["compress/clipped"])
    assert shares[0] == 0 < shares[1] < shares[2] < 1


class Deaf(Wire):
    """Client 1 never gets the message after which it would forget its secrets."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        unheard = (PHASES[3], 1)
        heard = [m for m in messages if (m.metadata.message_type, m.metadata.dst_node_id) != unheard]
        return super().send_and_receive(heard, timeout=timeout)


def run_with_secrets_left(grid: Wire, dataset: str, logdir: Path, store: str) -> Path:
    own = {"dataset": dataset, "logdir": str(logdir), "rounds": 2, "checkpoint-every": 1, "state-store": store}
    return federate(grid, Config.from_mapping({**SMALL, **SECURE, **own}))


def test_secrets_are_in_no_checkpoint(tiny_dataset: str, tmp_path: Path) -> None:
    grid = Deaf(10)
    folder = run_with_secrets_left(grid, tiny_dataset, tmp_path, "context")
    saved = Checkpoints(folder / FOLDER).load(print)
    assert saved
    assert len(saved.clients) == 10
    assert all(state["context"] and SECRETS not in state["context"] for state in saved.clients.values())
    assert repr(grid.state_of(1)[SECRETS]["seed"]) not in repr(saved)


def test_secrets_are_in_no_file_after_the_run(tiny_dataset: str, tmp_path: Path) -> None:
    left = list[Path]()

    def change(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == PHASES[3]:
            left.extend(tmp_path.glob(f"*/{FOLDER}/{CLIENTS}/1{SECRETS}/*"))
        return reply

    folder = run_with_secrets_left(Deaf(10, change), tiny_dataset, tmp_path, "files")
    assert left
    assert list((folder / FOLDER / CLIENTS).glob("1/*"))
    assert not list((folder / FOLDER / CLIENTS).glob(f"*{SECRETS}"))
