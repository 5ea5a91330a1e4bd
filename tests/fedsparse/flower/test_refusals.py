"""What cannot work is refused in one line, and what a client sends is hostile until it is checked."""

import logging
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message
from flwr.clientapp.mod import LocalDpMod
from flwr.server.strategy import FedAvg as OlderFedAvg
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
    Strategy,
)

from fedsparse.errors import ConfigError
from fedsparse.flower import CompressedStrategy, CompressMod
from tests.fedsparse.flower.federation import SIZE, client_app, play


@pytest.mark.parametrize("strategy", [FedMedian, FedTrimmedAvg, Krum, MultiKrum, Bulyan])
def test_a_strategy_that_votes_by_coordinate_is_refused_unless_every_coordinate_is_sent(
    strategy: type[FedAvg],
) -> None:
    with pytest.raises(ConfigError, match=f"^{strategy.__name__} compares clients coordinate by coordinate"):
        CompressedStrategy(strategy())
    with pytest.raises(ConfigError, match="every_coordinate=True"):
        CompressedStrategy(DifferentialPrivacyServerSideFixedClipping(strategy(), 1.0, 1.0, 4))


@pytest.mark.parametrize("strategy", [FedMedian, FedTrimmedAvg])
def test_it_votes_over_replies_with_every_coordinate(strategy: type[FedAvg]) -> None:
    wrapped = CompressedStrategy(strategy(), every_coordinate=True)
    start = {"w": np.zeros(20, np.float32)}
    plain, _ = play(strategy(), client_app(), start)
    result, _ = play(wrapped, client_app(CompressMod("none", values="f32")), start)
    np.testing.assert_allclose(result.arrays["w"].numpy(), plain.arrays["w"].numpy(), atol=1e-6)


def test_rows_of_an_embedding_that_a_client_has_not_changed_are_votes_for_no_change() -> None:
    def train(arrays: dict[str, np.ndarray], node: int, round: int) -> dict[str, np.ndarray]:
        return {"w": arrays["w"] + np.where(np.arange(1000) % (2 + node) > 0, 0, 1 + node)[:, None].astype(np.float32)}

    wrapped = CompressedStrategy(FedMedian(), every_coordinate=True)
    start = {"w": np.zeros((1000, 80), np.float32)}
    plain, _ = play(FedMedian(), client_app(train=train), start)
    result, _ = play(wrapped, client_app(CompressMod("none", values="f32"), train=train), start)
    np.testing.assert_allclose(result.arrays["w"].numpy(), plain.arrays["w"].numpy(), atol=1e-6)
    assert wrapped.uplink_bytes < 0.6 * wrapped.downlink_bytes  # they were left out of the payloads


def test_sparse_replies_to_such_a_strategy_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    strategy = CompressedStrategy(FedMedian(), every_coordinate=True)
    result, _ = play(strategy, client_app(CompressMod("topk", density=0.01)), rounds=1)
    assert not result.arrays
    assert "it leaves coordinates out" in caplog.text


def dp(strategy: Strategy) -> Strategy:
    return DifferentialPrivacyServerSideFixedClipping(
        strategy, noise_multiplier=0, clipping_norm=0.5, num_sampled_clients=4
    )


def test_differential_privacy_clips_what_was_decoded() -> None:
    wrapped = CompressedStrategy(dp(FedAvg()))
    result, _ = play(wrapped, client_app(CompressMod("none", values="f32")), rounds=2)
    plain, _ = play(dp(FedAvg()), client_app(), rounds=2)
    np.testing.assert_allclose(result.arrays["w"].numpy(), plain.arrays["w"].numpy(), atol=1e-6)


def test_a_wrapper_around_it_is_refused_before_the_first_round() -> None:
    with pytest.raises(ConfigError, match="put it outside"):
        play(dp(CompressedStrategy(FedAvg())), client_app(CompressMod("eden")))
    with pytest.raises(ConfigError, match="must be the outermost"):
        CompressedStrategy(dp(CompressedStrategy(FedAvg())))


def test_a_strategy_of_flowers_older_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"FedAvg is no strategy of Flower's Message API \(flwr.serverapp.strategy\)"):
        CompressedStrategy(OlderFedAvg())  # type: ignore[arg-type]


def test_two_messages_for_one_node_in_a_round_are_refused() -> None:
    class Twice(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):  # type: ignore[no-untyped-def]
            return [m for _ in range(2) for m in super(Twice, self).configure_train(server_round, arrays, config, grid)]

    with pytest.raises(ConfigError, match=r"^the strategy has two messages for node \d in one round"):
        play(CompressedStrategy(Twice()), client_app(CompressMod("eden")))


def test_clipping_on_clients_is_refused() -> None:
    with pytest.raises(ConfigError, match="its privacy bound would not hold"):
        CompressedStrategy(DifferentialPrivacyClientSideFixedClipping(FedAvg(), 1.0, 1.0, 4))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"compressor": "topq"}, "compressor = topq: did you mean topk"),
        ({"compressor": "topk", "density": 2}, "density = 2"),
        ({"compressor": "eden", "density": 0.1}, "density = 0.1 has no effect"),
        ({"compressor": "topk", "rounds": 3}, "CompressMod has no setting 'rounds'"),
    ],
)
def test_a_wrong_setting_is_one_line_when_the_mod_is_made(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=f"^{told}.*$"):
        CompressMod(**settings)  # type: ignore[arg-type]


def test_a_server_without_the_wrapper_gets_dense_replies_and_one_that_reads_payloads_fails_loudly() -> None:
    result, _ = play(FedAvg(), client_app(CompressMod("topk", density=0.01)))
    plain, _ = play(FedAvg(), client_app())
    assert np.array_equal(result.arrays["w"].numpy(), plain.arrays["w"].numpy())
    with pytest.raises(TypeError, match="fedsparse/1"):
        Array("float32", (3,), "fedsparse/1", b"").numpy()


def test_the_wrapper_passes_replies_of_clients_without_the_mod_through() -> None:
    small = CompressMod("none", values="f32")

    def mod(message, context, call_next):  # type: ignore[no-untyped-def]
        if context.node_id % 2:
            return small(message, context, call_next)
        del message.content["fedsparse"]
        return call_next(message, context)

    result, _ = play(CompressedStrategy(FedAvg()), client_app(mod))
    plain, _ = play(FedAvg(), client_app())
    np.testing.assert_allclose(result.arrays["w"].numpy(), plain.arrays["w"].numpy(), atol=1e-6)


PAYLOAD = "fedsparse/payload"


def payload(change: Callable[[bytes], bytes]) -> Callable[[ArrayRecord], ArrayRecord]:
    def forge(record: ArrayRecord) -> ArrayRecord:
        old = record[PAYLOAD]
        return ArrayRecord({**record, PAYLOAD: Array(old.dtype, old.shape, old.stype, change(old.data))})

    return forge


def header(text: str) -> Array:
    """A .npy file with this text in the place of its header."""
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(4 * SIZE)
    return Array("float32", (SIZE,), "numpy.ndarray", data)


def beside(array: Array) -> Callable[[ArrayRecord], ArrayRecord]:
    """The array that came as it is, beside the payload of the other one."""
    return lambda record: ArrayRecord({**record, "n": array})


FORGED: dict[str, Callable[[ArrayRecord], ArrayRecord]] = {
    "cut": payload(lambda data: data[:-5]),
    "flipped": payload(lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:]),
    "empty": payload(lambda data: b""),
    "long": payload(lambda data: data + bytes(10**6)),
    "two payloads": lambda record: ArrayRecord({**record, "b": record[PAYLOAD]}),
    "no numbers": beside(Array("float32", (SIZE,), "numpy.ndarray", b"x")),
    "other shape": beside(Array(np.zeros(3, np.float32))),
    "texts": beside(Array(np.full(SIZE, "x"))),
    "no array of NumPy's": beside(Array("float32", (SIZE,), "x", b"")),
    "a huge shape": beside(header("{'descr':'<f4','fortran_order':False,'shape':(9999999999999999999999,)}")),
    "no dtype": beside(header("{'descr':(),'fortran_order':False,'shape':()}")),
    "a deep header": beside(header("-" * 9000 + "1")),
    "an open header": beside(header("(" * 5000)),
    "a mixed header": beside(header("{1:2,'a':3}")),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_reply_becomes_an_error_reply_with_one_line_and_the_round_goes_on(
    forge: Callable[[ArrayRecord], ArrayRecord], caplog: pytest.LogCaptureFixture
) -> None:
    def between(replies: list[Message]) -> list[Message]:
        if replies and "arrays" in replies[0].content:
            of_1 = next(reply for reply in replies if reply.metadata.src_node_id == 1)
            of_1.content["arrays"] = forge(of_1.content["arrays"])
        return replies

    caplog.set_level(logging.INFO, "flwr")
    strategy = CompressedStrategy(FedAvg())
    start = {"w": np.zeros(SIZE, np.float32), "n": np.zeros(SIZE, np.int64)}
    result, _ = play(strategy, client_app(CompressMod("none", values="int8")), start, rounds=2, between=between)
    refused = [r.getMessage() for r in caplog.records if r.name == "fedsparse" and r.levelno == logging.WARNING]
    assert len(refused) == 2
    assert all(line.startswith("the reply of node 1 is refused: ") and "\n" not in line for line in refused)
    assert np.count_nonzero(result.arrays["w"].numpy())
    assert "Received 3 results and 1 failures" in caplog.text


def test_a_payload_in_a_record_of_its_own_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """FedAvg ends a run when one client's reply has another number of ArrayRecords."""

    def between(replies: list[Message]) -> list[Message]:
        if replies and "arrays" in replies[0].content:
            of_1 = next(reply for reply in replies if reply.metadata.src_node_id == 1)
            of_1.content["more"] = of_1.content["arrays"]
            of_1.content["arrays"] = ArrayRecord({"w": Array(np.zeros(SIZE, np.float32))})
        return replies

    play(CompressedStrategy(FedAvg()), client_app(CompressMod("eden")), rounds=1, between=between)
    assert "node 1 is refused: 1 payloads, the first in record 'more'" in caplog.text


def test_local_differential_privacy_adds_its_noise_before_the_mod_encodes() -> None:
    noisy = LocalDpMod(clipping_norm=1.0, sensitivity=1.0, epsilon=100.0, delta=1e-5)
    result, _ = play(CompressedStrategy(FedAvg()), client_app(CompressMod("none", values="f32"), noisy), rounds=1)
    plain, _ = play(FedAvg(), client_app(), rounds=1)
    noise = result.arrays["w"].numpy() - plain.arrays["w"].numpy()
    assert 0.01 < np.std(noise) < 0.1


def test_another_clients_payload_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    def between(replies: list[Message]) -> list[Message]:
        if replies and "arrays" in replies[0].content:
            by_node = {reply.metadata.src_node_id: reply for reply in replies}
            by_node[1].content["arrays"] = by_node[0].content["arrays"]
        return replies

    play(CompressedStrategy(FedAvg()), client_app(CompressMod("eden")), rounds=1, between=between)
    assert "node 1 is refused: payload is damaged, or it is another client's" in caplog.text


def test_the_package_imports_no_torch() -> None:
    program = "import sys, fedsparse.flower as f; f.CompressMod('eden'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
