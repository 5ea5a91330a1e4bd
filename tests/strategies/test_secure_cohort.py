"""Secure aggregation in a federation: the server gets one sum, of the clients that are left."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict

from benchmarks.faults import Books
from fedsparse.clients.state_store import load_state
from fedsparse.compression import UpdateCodec
from fedsparse.config import Config
from fedsparse.engine.pool import with_content
from fedsparse.engine.state_files import SECRETS, StateFiles
from fedsparse.errors import ConfigError, RunFailed
from fedsparse.experiment import Experiment
from fedsparse.preflight import check
from fedsparse.strategies.replies import Upload
from fedsparse.strategies.server_model import ServerModel
from tests.strategies.secure_federation import (
    PHASES,
    SECURE,
    SMALL,
    SPARSE,
    federation,
    lose,
    plain_mean,
    play,
    with_array,
)


@pytest.mark.parametrize("phase", PHASES)
def test_the_server_gets_the_mean_of_the_clients_that_are_left(phase: str, tiny_dataset: str) -> None:
    strategy, grid = federation(tiny_dataset, lose(phase, 2, 7))
    change = play(strategy, grid)
    left = range(10) if phase == PHASES[3] else set(range(10)) - {2, 7}
    np.testing.assert_allclose(change, plain_mean(tiny_dataset, left), atol=2e-5)  # half a step of secure-limit 1
    assert strategy.cohort.tally.metrics["comm/clients"] == len(left)
    assert [failure[:9] for failure in strategy.cohort.tally.failures] == ["client 2:", "client 7:"]
    accepted = {client for client in range(10) if strategy.cohort.ledger[client].accepted_round == 1}
    assert accepted == set(left)


def test_the_server_never_gets_an_update_of_one_client(tiny_dataset: str) -> None:
    strategy, grid = federation(tiny_dataset)
    play(strategy, grid)
    for message, reply in grid.seen:
        assert "update" not in reply.content.array_records["arrays"]
        if message.metadata.message_type == "train":
            masked = np.frombuffer(reply.content["arrays"]["masked"].data, np.uint8)[24:-4]
            counts = np.bincount(masked, minlength=256)
            assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 400  # chi-square, 255 degrees of freedom


def test_every_byte_of_every_phase_is_counted(tiny_dataset: str) -> None:
    strategy, grid = federation(tiny_dataset)
    play(strategy, grid)
    metrics = strategy.cohort.tally.metrics
    assert metrics["comm/messages"] == 40
    assert metrics["comm/uplink_bytes"] == grid.bytes_of(up=True)
    assert metrics["time/mask"] > 0
    assert strategy.cohort.tally.timer.seconds()["secure"] > 0
    weights = strategy.model.layout.size
    one = 64 + (32 + 9 * 82) + (21 + weights * 2 + 4 * -(-weights // 8) + 4) + 10 * 33
    assert metrics["comm/uplink_bytes"] == 10 * one


@pytest.mark.parametrize("compressor", ["none", "randomk"])
@pytest.mark.parametrize("store", ["context", "files"])
def test_what_is_not_in_the_sum_stays_with_its_client(
    compressor: str, store: str, tiny_dataset: str, tmp_path: Path
) -> None:
    """Rounding, the limit, and losses in every phase take nothing away: it all comes in a later round."""
    settings = {"compressor": compressor, "shared-support": compressor == "randomk", "density": 0.3}
    lost = {phase: (round, round + 4) for round, phase in enumerate(PHASES)}

    def change(message: Message, reply: Message) -> Message | None:
        kind, round = message.metadata.message_type, message.content["task"]["round"]
        return None if kind == PHASES[round - 1] and message.metadata.dst_node_id in lost[kind] else reply

    strategy, grid = federation(
        tiny_dataset, change, **settings, **{"residual-decay": 1, "secure-limit": 0.01, "secure-bits": 8}
    )
    strategy.cohort.state_folder = str(tmp_path) if store == "files" else ""
    experiment, books = strategy.cohort.model.gate.experiment, Books()
    summed, uploads = np.zeros(strategy.model.layout.size), strategy.cohort.uploads

    def recorded(*args: Any) -> Iterable[tuple[ServerModel, Upload]]:
        for model, upload in uploads(*args):
            upload.update.add_to(summed, upload.samples)
            yield model, upload

    strategy.cohort.uploads = recorded  # type: ignore[method-assign]
    with books.kept():
        play(strategy, grid, rounds=4)
    codec = UpdateCodec(strategy.model.layout, **strategy.config.compression())
    codec.feedback.is_on = True
    made, held = np.zeros_like(summed), np.zeros_like(summed)
    for client, samples in enumerate(experiment.partition.sizes.tolist()):
        files = StateFiles(tmp_path / str(client)) if store == "files" else None
        state = load_state(Context(1, client, {}, grid.state_of(client), {}), files)
        codec.settle(state, strategy.cohort.ledger[client].accepted_round)
        made += samples * books.made[client]
        held += samples * np.asarray(state.residual)
    assert np.abs(held).max() > 0.01
    np.testing.assert_allclose(summed + held, made, atol=1e-4 * np.abs(made).max())


def test_with_too_few_clients_left_the_round_goes_on_with_others(tiny_dataset: str) -> None:
    strategy, grid = federation(tiny_dataset, clients=20)
    first = set[int]()

    def change(message: Message, reply: Message) -> Message | None:
        node = message.metadata.dst_node_id
        if len(first) < 10:
            first.add(node)
        return None if message.metadata.message_type == "train" and node in sorted(first)[:4] else reply

    grid.change = change
    play(strategy, grid)
    accepted = {client for client in range(20) if strategy.cohort.ledger[client].accepted_round == 1}
    assert accepted == set(range(20)) - first
    assert strategy.cohort.tally.metrics["comm/clients"] == 10
    told = [failure.partition(": ")[2] for failure in strategy.cohort.tally.failures]
    assert told.count("6 clients are too few for a secure sum; it takes 7") == 6


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_ends_when_three_cohorts_cannot_be_summed(phase: str, tiny_dataset: str) -> None:
    strategy, grid = federation(tiny_dataset, lose(phase, *range(4)))
    before = strategy.model.weights.clone()
    with pytest.raises(RunFailed, match=r"round 1: all 10 clients failed; client 0: no reply"):
        play(strategy, grid)
    assert strategy.model.weights.equal(before)
    assert len({m.metadata.message_id for m, _ in grid.seen if m.metadata.message_type == PHASES[0]}) == 30


def shorter(reply: Message) -> Message:
    ((name, array),) = reply.content["arrays"].items()
    return with_array(name, array.data[:-1])(reply)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "wrong",
    [
        shorter,
        with_array("secure", b""),
        with_array("masked", bytes(100)),
        with_array("update", bytes(100), only=False),
        lambda reply: with_content(reply, RecordDict()),
        lambda reply: with_content(reply, RecordDict({**reply.content, "arrays": ConfigRecord({"a": 1})})),
        lambda reply: with_content(reply, RecordDict({**reply.content, "more": ConfigRecord({"a": 1})})),
    ],
    ids=["shorter", "empty", "masked", "update", "no records", "no arrays", "more"],
)
def test_a_wrong_message_costs_its_sender_the_turn(
    phase: str, wrong: Callable[[Message], Message], tiny_dataset: str
) -> None:
    def change(message: Message, reply: Message) -> Message:
        hostile = (message.metadata.message_type, message.metadata.dst_node_id) == (phase, 1)
        return wrong(reply) if hostile else reply

    strategy, grid = federation(tiny_dataset, change, **{"clients": 4, "clients-per-round": 4})
    play(strategy, grid)
    (failure,) = strategy.cohort.tally.failures
    assert failure.startswith("client 1: its reply is")
    assert len(failure) < 200
    assert "\n" not in failure
    assert strategy.cohort.tally.metrics["comm/clients"] == (4 if phase == PHASES[3] else 3)


def test_another_clients_masked_update_is_refused(tiny_dataset: str) -> None:
    kept: dict[int, Message] = {}

    def change(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "train":
            kept[message.metadata.dst_node_id] = reply
            if message.metadata.dst_node_id == 1:
                return with_content(reply, kept[0].content)
        return reply

    strategy, grid = federation(tiny_dataset, change)
    play(strategy, grid)
    assert strategy.cohort.tally.failures == [
        "client 1: its reply is refused: masked payload is damaged, or it is another client's or another run's"
    ]


def test_a_client_that_raises_in_one_phase_is_left_out(tiny_dataset: str) -> None:
    def change(message: Message, reply: Message) -> Message:
        raises = (message.metadata.message_type, message.metadata.dst_node_id) == (PHASES[1], 1)
        return Message(Error(2, "ValueError: no"), reply_to=message) if raises else reply

    strategy, grid = federation(tiny_dataset, change)
    play(strategy, grid)
    assert strategy.cohort.tally.failures == ["client 1: ValueError: no"]
    assert strategy.cohort.tally.metrics["comm/clients"] == 9


@pytest.mark.parametrize("store", ["context", "files"])
def test_secrets_are_for_this_user_alone_and_gone_after_the_round(
    store: str, tiny_dataset: str, tmp_path: Path
) -> None:
    strategy, grid = federation(tiny_dataset)
    strategy.cohort.state_folder = str(tmp_path) if store == "files" else ""
    modes = set[int]()

    def change(message: Message, reply: Message) -> Message:
        if message.metadata.message_type in PHASES[:3]:
            files = list(tmp_path.glob(f"*{SECRETS}/*"))
            modes.update(file.stat().st_mode & 0o777 for file in files)
            kept = len(files) if store == "files" else sum(SECRETS in grid.state_now(c) for c in range(10))
            assert kept == 10
        return reply

    grid.change = change
    play(strategy, grid)
    assert modes == ({0o600} if store == "files" else set())
    assert not list(tmp_path.glob(f"*{SECRETS}/*"))
    assert not any(SECRETS in grid.state_of(client) for client in range(10))


def test_masks_differ_from_run_to_run_and_the_weights_do_not(tiny_dataset: str) -> None:
    played = []
    for _ in range(2):
        strategy, grid = federation(tiny_dataset)
        weights = play(strategy, grid, rounds=2)
        masked = {r.content["arrays"]["masked"].data for m, r in grid.seen if m.metadata.message_type == "train"}
        played.append((weights, masked))
    assert played[0][0].equal(played[1][0])
    assert not played[0][1] & played[1][1]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"compressor": "topk"}, "clients of compressor = topk send different coordinates"),
        ({"compressor": "randomk"}, "choose none, or randomk with shared-support"),
        ({"compressor": "eden"}, "leave compressor = eden out"),
        ({"values": "int8"}, "leave values = int8 out"),
        ({"aggregator": "median"}, "use aggregator = mean"),
        ({"attack": "alie"}, "use attack = none"),
        ({"upload-pruning": "magnitude"}, "use upload-pruning = off"),
        ({"max-update-norm": 5.0}, "leave max-update-norm out"),
        ({"clients-per-round": 2}, "it takes 3"),
        (dict.fromkeys(("clients", "clients-per-round"), 2**16 + 1), "use at most 65536 clients-per-round"),
        ({"min-replies": 8}, "3 are left, and a second sum takes 7; use min-replies = 7"),
        ({"dp-noise": 1}, "leave one of them out"),
        ({"topology": "feddst", **SPARSE}, "topology = feddst asks each client for more"),
        ({"topology": "rigl", **SPARSE}, "topology = rigl asks each client for more"),
        ({"topology": "ssfl", **SPARSE}, "topology = ssfl asks each client for more"),
    ],
    ids=str,
)
def test_what_needs_more_than_a_sum_is_refused_with_one_line(
    settings: dict[str, Any], line: str, tiny_dataset: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^secure-aggregation = true: .*{line}"):
        check(Experiment(Config.from_mapping({**SMALL, "dataset": tiny_dataset, **SECURE, **settings})))


@pytest.mark.parametrize("topology", ["static", "set", "magnitude", "small-dense"])
def test_topologies_that_the_server_decides_are_summed(topology: str, tiny_dataset: str) -> None:
    settings = {"topology": topology, **SPARSE}
    if topology in ("set", "magnitude"):
        settings |= {"readjustment-interval": 1, "readjustment-end": 3}
    strategy, grid = federation(tiny_dataset, **settings)
    differ = (play(strategy, grid) - plain_mean(tiny_dataset, range(10), **settings)).abs() > 2e-5
    assert differ.float().mean() < 1e-3  # where two weights are nearly equal, the topology may choose the other one
