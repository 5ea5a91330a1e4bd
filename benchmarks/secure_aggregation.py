"""What secure aggregation costs: CPU seconds and bytes of a round without training, beside the same round in the open.

    python -m benchmarks.secure_aggregation

All clients and the server share one thread. In the second round of each federation a fifth of its clients drops out.
"""

import logging
import statistics
import time
from collections.abc import Iterable

import torch
from flwr.app import Message, MessageType

from benchmarks.common import Federation, machine
from fedsparse.config import Config
from fedsparse.engine import LocalGrid

COMPRESSORS = {"none": {"compressor": "none"}, "randomk": {"compressor": "randomk", "shared-support": True}}
REPEATS = 3


class Losing(LocalGrid):
    """A grid on which every fifth client's upload does not arrive, while ``losing`` is True."""

    losing = False

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = super().send_and_receive(messages, timeout=timeout)
        lost = [r for r in replies if r.metadata.message_type == MessageType.TRAIN and r.metadata.src_node_id % 5 == 0]
        return [reply for reply in replies if not (self.losing and reply in lost)]


def measure(clients: int, settings: dict[str, object], *, losing: bool = False) -> tuple[float, float, float]:
    """The median CPU seconds of a round, and the bytes up and down of one client."""
    cohort = {"clients": clients, "clients-per-round": clients, "cohort-batching": "off"}
    config, seconds = Config.from_mapping({**cohort, **settings}), []
    with Losing("benchmarks.idle:app", clients) as grid:
        federation = Federation(config, grid, grid.get_node_ids())
        federation.round()
        grid.losing = losing
        for _ in range(REPEATS):
            began = time.process_time()
            federation.round()
            seconds.append(time.process_time() - began)
    metrics = federation.strategy.cohort.tally.metrics
    return statistics.median(seconds), metrics["comm/uplink_bytes"] / clients, metrics["comm/downlink_bytes"] / clients


def main() -> None:
    torch.set_num_threads(1)
    logging.getLogger("fedsparse").setLevel(logging.ERROR)  # because clients drop out
    print(f"{machine()}\n\n| clients | compressor | CPU ms a client | secure | a fifth drops out |", end="")
    print(" bytes up a client | secure | more bytes down |\n|---:|---|---:|---:|---:|---:|---:|---:|")
    for clients in (10, 100):
        for name, compressor in COMPRESSORS.items():
            secure = {**compressor, "secure-aggregation": True}
            plain, up, down = measure(clients, compressor)
            seconds, secure_up, secure_down = measure(clients, secure)
            losing, _, _ = measure(clients, secure, losing=True)
            times = " | ".join(f"{1000 * s / clients:.1f}" for s in (plain, seconds, losing))
            print(
                f"| {clients} | `{name}` | {times} | {up:,.0f} | {secure_up:,.0f} | {secure_down - down:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
