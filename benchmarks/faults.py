"""A network that loses, delays, damages and repeats replies: is every update counted once, and what does it cost?

    python -m benchmarks.faults                                          # 200 rounds of the default job, three seeds
    python -m benchmarks.faults --seeds 5 --rates "lost=0.15" "--residual-decay 1"

Each argument is a set of flags for main.py. Mass is the sum of a client's updates: those that the server accepted and
what the client still holds should add up to those that the client made. What is missing is a share of the norm of a
client's mass, the largest of all clients and seeds; a `--residual-decay` below 1 discards some of it.
"""

import argparse
import io
import logging
import shlex
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MessageType, RecordDict

from fedsparse.clients import client_app
from fedsparse.compression import UpdateCodec
from fedsparse.compression.arrays import as_float32, to_numpy
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.engine.client_store import load_state
from fedsparse.engine.pool import with_content
from fedsparse.experiment import Experiment
from fedsparse.report.results import read_result
from fedsparse.report.table import Estimate, measure
from fedsparse.strategies.cohort import Cohort
from fedsparse.strategies.ledger import Known
from fedsparse.strategies.server_app import federate

JOB = "--distribution dirichlet --beta 0.1 --rounds 200 --workers 1"
RATES = {"lost": 0.05, "late": 0.05, "corrupt": 0.05}


class FaultyGrid(LocalGrid):
    """LocalGrid over a network on which replies to train messages go wrong, drawn from a seed.

    Args:
        clients: number of nodes.
        rates: the share of messages that never reach their client (``unreached``), or whose replies are ``lost``, come
            ``late`` (as the first of the next round), are ``corrupt`` (one bit of the payload is another), or arrive
            ``twice``.

    Attributes:
        faults: how many replies each fault took so far.
    """

    def __init__(self, clients: int, rates: Mapping[str, float], seed: int = 0) -> None:
        app = client_app.__name__
        super().__init__(f"{app}:app", clients, together=f"{app}:train_together")
        self.kinds, self.shares = [*rates, "none"], [*rates.values(), 1 - sum(rates.values())]
        self.rng, self.faults, self._late = np.random.default_rng(seed), Counter[str](), list[Message]()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        batch = list(messages)
        if any(message.metadata.message_type != MessageType.TRAIN for message in batch):
            return super().send_and_receive(batch, timeout=timeout)
        drawn = [str(fault) for fault in self.rng.choice(self.kinds, len(batch), p=self.shares)]
        self.faults.update(drawn)
        reached = [message for message, fault in zip(batch, drawn, strict=True) if fault != "unreached"]
        replies = iter(super().send_and_receive(reached, timeout=timeout))
        arrived, self._late = self._late, []
        for fault in drawn:
            if fault == "unreached":
                continue
            reply = next(replies)
            if fault == "late":
                self._late.append(reply)
            elif fault == "corrupt":
                arrived.append(self._damaged(reply))
            elif fault != "lost":
                arrived.append(reply)
            if fault == "twice":  # a copy, because the server empties the records that it has read
                copies = RecordDict({name: record.copy() for name, record in reply.content.items()})
                arrived.append(with_content(reply, copies))
        return arrived

    def _damaged(self, reply: Message) -> Message:
        arrays: Any = reply.content["arrays"]
        whole = arrays["update"]
        data = bytearray(whole.data)
        data[self.rng.integers(len(data))] ^= 1 << int(self.rng.integers(8))
        damaged = ArrayRecord({**arrays, "update": Array(whole.dtype, whole.shape, whole.stype, bytes(data))})
        return with_content(reply, RecordDict({**reply.content, "arrays": damaged}))


class Books:
    """What became of every update of a run without a topology, for each client.

    Attributes:
        made: the sum of the updates that a client made, float64, shape ``(parameters,)``.
        accepted: the sum of those that the server decoded and accepted.
        cohort: of the run.
    """

    def __init__(self) -> None:
        self.made: dict[int, np.ndarray] = {}
        self.accepted = defaultdict[int, np.ndarray](lambda: np.zeros(1))
        self.cohort: Cohort

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Write down what clients of this process encode, and what cohorts accept."""
        encode_update, upload = client_app.encode_update, Cohort.upload

        def encoding(
            bench: Any, context: Any, task: Any, update: Any, own: Any, codec: Any, client: int, *rest: Any
        ) -> Any:
            parameters = to_numpy(update[: bench.layout.parameters]).astype(np.float64)
            self.made[client] = self.made.get(client, 0) + parameters
            return encode_update(bench, context, task, update, own, codec, client, *rest)

        def uploading(cohort: Cohort, client: int, *rest: Any) -> Any:
            self.cohort, accepted = cohort, upload(cohort, client, *rest)
            if accepted:
                dense = accepted.update.to_dense()[: accepted.update.layout.parameters]
                self.accepted[client] = self.accepted[client] + dense.astype(np.float64)
            return accepted

        client_app.encode_update, Cohort.upload = encoding, uploading  # type: ignore[assignment]
        try:
            yield
        finally:
            client_app.encode_update, Cohort.upload = encode_update, upload  # type: ignore[method-assign]

    def held(self, client: int, grid: LocalGrid, codec: UpdateCodec) -> np.ndarray:
        """What a client still has to send: its residual, with the last payload if that was not accepted."""
        state = load_state(Context(1, client, {}, grid.state_of(client), {}), None)
        codec.settle(state, Known(*self.cohort.ledger.known(client)).accepted_round)  # type: ignore[arg-type]
        return np.zeros(1) if state.residual is None else as_float32(to_numpy(state.residual)).astype(np.float64)

    def missing(self, grid: LocalGrid, config: Config) -> list[float]:
        """Of each client's mass, the share of its norm that is neither accepted nor held, or that is so twice."""
        codec = UpdateCodec(Experiment(config).layout, **config.compression())
        rests = {c: made - self.accepted[c] - self.held(c, grid, codec) for c, made in self.made.items()}
        return [float(np.linalg.norm(rest) / np.linalg.norm(self.made[c])) for c, rest in rests.items()]


def played(config: Config, rates: Mapping[str, float]) -> tuple[Path, FaultyGrid, Books]:
    """A run over a faulty network: its folder, its grid at the end, and its books."""
    books = Books()
    with FaultyGrid(config.clients, rates, config.seed) as grid, books.kept(), redirect_stdout(io.StringIO()):
        folder = federate(grid, config)
    return folder, grid, books


def measured(flags: str, seed: int, rates: Mapping[str, float]) -> tuple[float, float]:
    """Of one run: the accuracy in points, as in the tables of ``report``, and the largest share that is missing."""
    words = shlex.split(f"{JOB} {flags}")
    settings = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    with tempfile.TemporaryDirectory() as logdir:
        config = Config.from_mapping(settings | {"seed": seed, "logdir": logdir})
        folder, grid, books = played(config, rates)
        return 100 * measure(read_result(folder / "result.json"))["accuracy"], max(books.missing(grid, config))


def read_rates(text: str) -> dict[str, float]:
    """``lost=0.1 late=0.05`` as a mapping."""
    return {kind: float(rate) for kind, rate in (word.split("=") for word in text.split())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=["--residual-decay 0.88", "--residual-decay 1"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", default=RATES, type=read_rates)
    arguments = parser.parse_args()
    logging.getLogger("fedsparse").addHandler(logging.NullHandler())
    print(f"`main.py {JOB}`, {arguments.seeds} seeds, {arguments.rates}; mean ± 95 % confidence interval\n")
    print("| settings | clean | with faults | difference | missing mass, clean | with faults |")
    print("|---|---:|---:|---:|---:|---:|")
    for flags in arguments.settings:
        clean, faulty = (
            np.array([measured(flags, seed, rates) for seed in range(arguments.seeds)])
            for rates in ({}, arguments.rates)
        )
        accuracies = (clean[:, 0], faulty[:, 0], faulty[:, 0] - clean[:, 0])
        cells = [f"{e.mean:.1f} ± {e.half_width:.1f}" for e in map(Estimate.of, accuracies)]
        cells += [f"{runs[:, 1].max():.1g}" for runs in (clean, faulty)]
        print(f"| `{flags}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
