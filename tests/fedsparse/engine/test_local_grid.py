"""LocalGrid and its pool, with an app that follows the order in its message."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedsparse.engine import LocalGrid
from fedsparse.errors import PluginError

APP = "tests.fedsparse.engine.obedient:app"
TOGETHER = "tests.fedsparse.engine.obedient:together"


@pytest.fixture(params=["one process", "two threads", "two workers"])
def grid(request: pytest.FixtureRequest) -> Iterator[LocalGrid]:
    with LocalGrid(APP, clients=1_000_000, workers=1 + (request.param == "two workers")) as grid:
        if request.param == "two threads":
            grid.overlap(torch.device("cpu"))
        yield grid


def ask(
    grid: LocalGrid, orders: dict[int, str], timeout: float | None = None, weights: ArrayRecord | None = None
) -> dict[int, Message]:
    """Send every node its order; replies by node."""
    weights = weights or ArrayRecord()
    messages = [
        Message(RecordDict({"arrays": weights, "order": ConfigRecord({"do": order})}), node, "train")
        for node, order in orders.items()
    ]
    return {reply.metadata.src_node_id: reply for reply in grid.send_and_receive(messages, timeout=timeout)}


def calls(reply: Message) -> MetricRecord:
    return reply.content.metric_records["metrics"]


def test_replies_come_in_the_order_of_the_messages(grid: LocalGrid) -> None:
    assert list(ask(grid, {7: "sleep", 3: "work", 999_999: "work", 0: "work"})) == [7, 3, 999_999, 0]


def test_each_client_keeps_its_own_state(grid: LocalGrid) -> None:
    ask(grid, {1: "work", 2: "work"})
    replies = ask(grid, {1: "work", 3: "work"})
    assert calls(replies[1])["calls"] == 2
    assert calls(replies[3])["calls"] == 1
    assert calls(replies[1])["partition-id"] == 1


def test_a_client_that_raises_is_reported_and_keeps_its_old_state(grid: LocalGrid) -> None:
    ask(grid, {1: "work"})
    replies = ask(grid, {1: "raise", 2: "work"})
    assert "ValueError: as told" in replies[1].error.reason
    assert calls(replies[2])["calls"] == 1
    assert calls(ask(grid, {1: "work"})[1])["calls"] == 2


def test_a_federation_costs_what_its_cohort_costs() -> None:
    with LocalGrid(APP, clients=10**15) as grid:
        assert list(ask(grid, {1: "work", 10**15 - 1: "work"})) == [1, 10**15 - 1]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("app", "line"),
    [
        ("nowhere.py:app", r"there is no file .*nowhere\.py"),
        ("tests.fedsparse.engine.nowhere:app", "there is no module 'tests.fedsparse.engine.nowhere'"),
        ("broken.py:app", r"broken\.py:app: ZeroDivisionError: division by zero \(broken\.py, line 1\)"),
    ],
)
def test_an_app_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, app: str, line: str
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match=line) as error:
        LocalGrid(app, clients=1, workers=workers)
    assert "\n" not in str(error.value)


def test_a_node_that_does_not_exist_is_an_error(grid: LocalGrid) -> None:
    with pytest.raises(ValueError, match="there is no node 1000000"):
        ask(grid, {1_000_000: "work"})


def test_a_worker_that_dies_costs_its_own_client_only() -> None:
    with LocalGrid(APP, clients=10, workers=2) as grid:
        ask(grid, {1: "work"})
        replies = ask(grid, {1: "die", 2: "work", 3: "work", 4: "work"})
        assert "its worker process died: killed by signal 9, perhaps" in replies[1].error.reason
        assert all(calls(replies[i])["calls"] == 1 for i in (2, 3, 4))
        assert calls(ask(grid, {1: "work"})[1])["calls"] == 2


def test_a_round_ends_at_its_timeout_without_the_missing_replies() -> None:
    with LocalGrid(APP, clients=10, workers=2) as grid:
        ask(grid, {1: "work", 2: "work"})
        began = time.monotonic()
        assert set(ask(grid, {1: "hang", 2: "work", 3: "work"}, timeout=2.0)) == {2, 3}
        assert time.monotonic() - began < 20
        assert calls(ask(grid, {1: "work"})[1])["calls"] == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_that_hangs_fails_and_the_other_clients_do_not(workers: int) -> None:
    with LocalGrid(APP, clients=10, workers=workers, client_timeout=2.0) as grid:
        ask(grid, {1: "work", 2: "work"})
        replies = ask(grid, {1: "hang", 2: "work", 3: "work"})
        assert "did not answer within client-timeout = 2 s" in replies[1].error.reason
        assert calls(replies[2])["calls"] == 2
        assert calls(ask(grid, {1: "work"})[1])["calls"] == 2


def test_the_start_of_a_new_worker_does_not_count_against_its_first_client() -> None:
    with LocalGrid(APP, clients=10, workers=1, client_timeout=1.0) as grid:
        for _ in range(2):
            assert not ask(grid, {1: "start slowly"})[1].has_error()


def test_a_worker_that_stopped_before_reading_its_message_fails_too() -> None:
    with LocalGrid(APP, clients=10, workers=2, client_timeout=2.0) as grid:
        stopped = calls(ask(grid, {1: "sleep", 2: "sleep"})[1])["pid"]
        os.kill(stopped, signal.SIGSTOP)
        large = ArrayRecord({"weights": Array("uint8", (2**23,), "bytes", bytes(2**23))})  # more than a pipe can buffer
        replies = ask(grid, dict.fromkeys(range(1, 5), "work"), weights=large)
        failed = [reply for reply in replies.values() if reply.has_error()]
        assert len(replies) == 4
        assert len(failed) == 1
        assert failed[0].error.reason == "it did not answer within client-timeout = 2 s"
        assert not any(reply.has_error() for reply in ask(grid, dict.fromkeys(range(1, 5), "work")).values())


@pytest.mark.parametrize("workers", [1, 2])
def test_groups_go_together_and_each_client_keeps_its_own_reply_and_state(workers: int) -> None:
    with LocalGrid(APP, clients=10, together=TOGETHER, workers=workers) as grid:
        grid.group = 3
        for turn in (1, 2):
            replies = ask(grid, {1: "work", 2: "raise", 3: "work", 4: "work", 5: "work"})
            assert list(replies) == [1, 2, 3, 4, 5]
            assert "ValueError: as told" in replies[2].error.reason
            assert [calls(replies[i])["calls"] for i in (1, 3, 4, 5)] == [turn] * 4
            assert [calls(replies[i])["together"] for i in (1, 3, 4, 5)] == [3, 3, 2, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_group_that_cannot_go_together_goes_one_by_one(workers: int) -> None:
    with LocalGrid(APP, clients=10, together=TOGETHER, workers=workers) as grid:
        grid.group = 3
        replies = ask(grid, {1: "work", 2: "raise together", 3: "work", 4: "work", 5: "work"})
        assert "together" not in calls(replies[1])
        assert calls(replies[4])["together"] == 2


def test_a_worker_that_dies_costs_its_group_only() -> None:
    with LocalGrid(APP, clients=10, together=TOGETHER, workers=2) as grid:
        grid.group = 2
        replies = ask(grid, {1: "work", 2: "die", 3: "work", 4: "work"})
        assert all("its worker process died: killed by signal 9, perhaps" in replies[i].error.reason for i in (1, 2))
        assert all(calls(replies[i])["calls"] == 1 for i in (3, 4))


@pytest.fixture
def overlapped() -> Iterator[LocalGrid]:
    with LocalGrid(APP, clients=10, together=TOGETHER) as grid:
        grid.overlap(torch.device("cpu"))
        yield grid


def test_two_clients_are_at_work_at_once_and_a_group_counts_as_one(overlapped: LocalGrid) -> None:
    assert not any(reply.has_error() for reply in ask(overlapped, {1: "meet", 2: "meet"}).values())
    overlapped.group = 2
    replies = ask(overlapped, {1: "meet", 2: "work", 3: "meet", 4: "work"})
    assert [calls(reply)["together"] for reply in replies.values()] == [2] * 4


def test_after_the_timeout_no_thread_starts_another_client(overlapped: LocalGrid) -> None:
    assert list(ask(overlapped, dict.fromkeys(range(1, 7), "sleep"), timeout=0.3)) == [1, 2, 3, 4]


def test_ctrl_c_ends_both_threads_at_once_and_their_clients_keep_their_state(overlapped: LocalGrid) -> None:
    ask(overlapped, {1: "work", 2: "work", 3: "work"})
    alarm = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    alarm.start()
    with pytest.raises(KeyboardInterrupt):
        ask(overlapped, {1: "loop", 2: "loop", 3: "work"})
    began = time.monotonic()
    replies = ask(overlapped, {1: "work", 2: "meet", 3: "meet"})  # both threads are free
    assert time.monotonic() - began < 10
    assert [calls(reply)["calls"] for reply in replies.values()] == [2, 2, 2]


def test_ctrl_c_does_not_wait_for_a_client_that_no_exception_ends() -> None:
    grid = LocalGrid(APP, clients=10)
    grid.overlap(torch.device("cpu"))
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(grid, {1: "hang", 2: "work", 3: "work"})
    grid.close()
    assert time.monotonic() - began < 10


def test_a_worker_that_died_between_rounds_costs_no_client() -> None:
    with LocalGrid(APP, clients=10, workers=2) as grid:
        before = {int(calls(reply)["pid"]) for reply in ask(grid, {1: "sleep", 2: "sleep"}).values()}
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
        assert not any(reply.has_error() for reply in ask(grid, {1: "work", 2: "work", 3: "work"}).values())


def test_closing_leaves_no_process_behind() -> None:
    grid = LocalGrid(APP, clients=10, workers=2)
    pids = {int(calls(reply)["pid"]) for reply in ask(grid, dict.fromkeys(range(6), "sleep")).values()}
    assert os.getpid() not in pids
    grid.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_flower_still_takes_the_sender_from_the_task_identity_that_localgrid_sets() -> None:
    """If Flower moves its private TaskIdentity, Message() here raises or has no sender."""
    LocalGrid(APP, clients=1)
    message = Message(RecordDict(), 0, "train")
    assert (message.metadata.run_id, message.metadata.src_node_id) == (1, -1)
