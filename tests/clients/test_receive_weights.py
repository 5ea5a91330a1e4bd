"""The downlink from both ends: every client that trains holds the server's public weights, bit for bit."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord

from fedsparse.clients.receive_weights import receive
from fedsparse.compression import ClientState, PayloadError, UpdateCodec
from fedsparse.compression.changes import MissedChange
from fedsparse.config import Config
from fedsparse.engine.records import payload_array
from fedsparse.strategies.downlink import Downlink
from tests.fedsparse.compression.common import layout_of

LAYOUT = layout_of(4000, 10, 990, buffers=(6,))
METHODS = ["topk", "stc", "randomk", "eden", "lowrank", "gaussian", "signsgd"]


class Server:
    """A server whose weights change at random, and its clients."""

    def __init__(self, compressor: str = "stc", density: float = 0.02) -> None:
        settings = {"downlink_compressor": compressor, "downlink_density": density, "clients": 20}
        self.downlink = Downlink(Config.from_mapping(settings))
        self.rng, self.weights, self.round = np.random.default_rng(0), torch.zeros(LAYOUT.size), 0
        self.clients: dict[int, ClientState] = defaultdict(ClientState)
        self.held: dict[int, int] = defaultdict(int)
        self.bytes: list[int] = []

    def next_round(self) -> ArrayRecord:
        self.round += 1
        self.weights += torch.from_numpy(self.rng.standard_normal(LAYOUT.size).astype(np.float32) * 0.01)
        self.known = self.downlink.advance(self.weights, LAYOUT, self.round)
        payload, _ = UpdateCodec(LAYOUT, "none").encode(self.known, ClientState(), round=self.round, seed=0)
        return ArrayRecord({"weights": payload_array(payload, LAYOUT)})

    def message(self, client: int, whole: ArrayRecord) -> ArrayRecord:
        arrays = self.downlink.arrays_for(self.held[client], whole)
        self.bytes.append(sum(len(array.data) for array in arrays.values()))
        return arrays

    def train(self, client: int, whole: ArrayRecord) -> None:
        received = receive(self.message(client, whole), LAYOUT, self.clients[client]).to_dense()
        assert np.array_equal(received, self.known.numpy())


@pytest.mark.parametrize("compressor", METHODS)
def test_clients_that_come_and_go_and_lose_replies_hold_the_servers_public_weights(compressor: str) -> None:
    server = Server(compressor)
    for _ in range(40):
        whole = server.next_round()
        for client in server.rng.choice(20, 5, replace=False).tolist():
            if (fate := server.rng.random()) < 0.15:
                server.message(client, whole)  # the message is lost, or the client dies before it saves its state
            else:
                server.train(client, whole)
                if fate > 0.3:  # else the reply is lost
                    server.held[client] = server.round
    assert max(server.bytes) <= 4 * LAYOUT.size + 64


def test_a_client_that_lost_its_state_fails_once_and_is_then_sent_whole_weights() -> None:
    server = Server()
    for round in range(1, 4):
        server.train(0, server.next_round())
        server.held[0] = server.round
        if round == 2:
            server.clients[0] = ClientState()
            with pytest.raises(MissedChange, match="holds none"):
                server.train(0, server.next_round())
            server.held[0] = 0
    assert server.bytes[-1] > 4 * LAYOUT.size


def test_changes_for_other_weights_are_refused_and_leave_the_state_as_it_was() -> None:
    server = Server()
    server.train(0, server.next_round())
    server.held[0] = server.round
    state = server.clients[0]
    state.memory["weights"] = before = state.memory["weights"] + np.float32(1e-7)
    with pytest.raises(MissedChange, match="round 2 differ"):
        server.train(0, server.next_round())
    assert state.memory["weights"] is before
    assert state.memory["round"] == 1


def test_a_client_gets_the_shorter_of_changes_and_whole_weights() -> None:
    server = Server("topk", density=0.3)
    server.train(0, server.next_round())
    server.held[0] = server.round
    server.train(0, server.next_round())  # one change
    for _ in range(6):
        whole = server.next_round()
    server.train(0, whole)  # seven changes would be longer than whole weights
    one, seven = server.bytes[1:]
    assert one < 4 * LAYOUT.size < seven <= 4 * LAYOUT.size + 64


def test_weights_that_one_change_leaves_out_arrive_with_later_changes() -> None:
    server = Server("stc", density=0.05)
    server.next_round()
    for _ in range(3):
        server.next_round()
    still = server.weights.clone()
    for round in range(5, 400):
        known = server.downlink.advance(still, LAYOUT, round)
    assert np.linalg.norm(known.numpy() - still.numpy()) < 0.02 * float(still.norm())


def test_a_whole_downlink_is_exact_and_the_server_keeps_no_copy() -> None:
    server = Server("none")
    whole = server.next_round()
    assert server.message(0, whole) is whole
    assert np.array_equal(receive(whole, LAYOUT, ClientState()).to_dense(), server.weights.numpy())
    assert server.known is server.weights


def test_a_damaged_change_is_refused() -> None:
    server = Server()
    server.train(0, server.next_round())
    server.held[0] = server.round
    arrays = server.message(0, server.next_round())
    name = next(iter(arrays))
    arrays[name] = payload_array(arrays[name].data[:-1] + b"x", LAYOUT)
    with pytest.raises(PayloadError):
        receive(arrays, LAYOUT, server.clients[0])
