"""A run's checkpoints: when one is written, what is in it, and how a run goes on from one."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fedsparse.checkpoint import Checkpoints, Saved, State
from fedsparse.engine import LocalGrid
from fedsparse.engine.saved_contexts import from_plain, to_plain
from fedsparse.engine.state_files import SECRETS, go_back, remove_secrets, sync_states
from fedsparse.strategies.fedavg import FedAvg
from fedsparse.telemetry.recorder import Recorder
from fedsparse.telemetry.step_log import StepTable

log = logging.getLogger("fedsparse")

FOLDER, CLIENTS = "checkpoint", "clients"
"""In the run folder, the folder of checkpoints; and in that one, the folder of the clients' state files."""
SECONDS = 300.0
"""From one checkpoint to the next, where ``checkpoint-every`` names no rounds."""
SHARE = 0.05
"""The most of a run's time that these checkpoints may take."""


class Saver:
    """Writes a run's checkpoints.

    The state between two rounds is what can be saved. After a stop in the middle of a round that is the state before
    this round, as long as the server has not begun its step.

    Args:
        checkpoints: where to write them.
        strategy: the server's side of the run.
        grid: the local one has the clients' Contexts. Other grids do not let the server look at them.
        recorder: has the measurements.
        table: counts the local steps for TensorBoard.
        save_model: writes the model for users.
    """

    def __init__(
        self, checkpoints: Checkpoints, strategy: FedAvg, grid: Grid, recorder: Recorder, table: StepTable,
        save_model: Callable[[], None],
    ) -> None:  # fmt: skip
        self.checkpoints, self.strategy, self.save_model = checkpoints, strategy, save_model
        self.recorder, self.table = recorder, table
        self.grid = grid if isinstance(grid, LocalGrid) else None
        self.config, self.cohort = strategy.config, strategy.cohort
        self.cohort.kept_rounds = list(checkpoints.rounds)
        self._written = self._round = checkpoints.rounds[-1] if checkpoints.rounds else None
        self._pause, self._since = SECONDS, time.monotonic()

    def round_ended(self, round: int) -> None:
        """Remember that the state is whole."""
        self.strategy.stepping = False
        self.cohort.settle()
        if self.grid:
            self.grid.settle()
        self._round = round

    def save_if_due(self, round: int) -> None:
        """Write a checkpoint of the round that has ended when one is due."""
        if every := self.config.checkpoint_every:
            due = round > 0 and round % every == 0
        else:
            due = time.monotonic() - self._since > self._pause
        if due:
            self._write(round)

    def stopped(self, complete: bool) -> None:
        """Write a last checkpoint. A complete run needs none, unless its user has asked for checkpoints."""
        remove_secrets(self.checkpoints.folder / CLIENTS)
        unwritten = self._round is not None and self._round != self._written and not self.strategy.stepping
        if unwritten and not (complete and not self.config.checkpoint_every):
            assert self._round is not None
            self._write(self._round)

    def _write(self, round: int) -> None:
        """Write a checkpoint; a failure is a warning, because the run can go on."""
        began = time.monotonic()
        everything = self.checkpoints.wants_all(len(self.cohort.ledger.changed))
        clients = self.cohort.ledger.met if everything else sorted(self.cohort.ledger.changed)
        try:
            server = {
                "strategy": self.strategy.state_dict(),
                "telemetry": self.recorder.save(),
                "steps": self.table.done,
                "store": "files" if self.cohort.state_folder else "context",
            }
            rows = self.recorder.rounds[0 if everything else self.checkpoints.saved_rows :]
            states = self._states(clients, round)
            self.checkpoints.write(round, self.config.flat(), server, rows, states, all_clients=everything)
            self.save_model()
        except (OSError, TypeError) as error:
            log.warning("there is no checkpoint of round %d: %s", round, error)
        else:
            self._written = round
            self.cohort.kept_rounds = list(self.checkpoints.rounds)
            self.cohort.ledger.changed.clear()
        self._since = time.monotonic()
        self._pause = max(SECONDS, (self._since - began) / SHARE)

    def _states(self, clients: list[int], round: int) -> Iterator[tuple[int, State]]:
        """What decides the future of each client: the ledger's line, and the state in its Context or its files."""
        folder = self.cohort.state_folder
        for client in clients:
            state: State = {"known": self.cohort.ledger.known(client)}
            context = to_plain(self.grid.state_of(client)) if self.grid else {}
            context.pop(SECRETS, None)  # of a client that dropped out
            if context:
                state["context"] = context
            if folder:
                state["files"] = sync_states(Path(folder), client, round)
            yield client, state


def restore(saved: Saved, strategy: FedAvg, grid: Grid, folder: Path) -> None:
    """Put the state of a checkpoint into a new strategy and grid.

    Args:
        folder: of the clients' state files.
    """
    strategy.load_state_dict(saved.server["strategy"])
    in_files, cohort = saved.server["store"] == "files", strategy.cohort
    reachable = isinstance(grid, LocalGrid) or (in_files and strategy.config.engine == "flower")
    lost = 0
    for client, state in saved.clients.items():
        complete = reachable and all((folder / name).is_file() for name in state.get("files", ()))
        cohort.ledger.restore(client, state["known"], keeps_state=complete)
        lost += not complete
        if isinstance(grid, LocalGrid) and "context" in state:
            grid.restore(client, from_plain(state["context"]))
    if lost:
        log.warning("the states of %d clients are not in the checkpoint; these clients start without residuals", lost)
    cohort.settle()
    cohort.ledger.changed.clear()


def going_on(checkpoints: Checkpoints, run: Path) -> Saved | None:
    """The checkpoint from which to go on; None to begin anew, because the run was killed before it wrote one.

    Removes what the clients' files hold of later rounds.
    """
    saved = checkpoints.load(log.warning)
    go_back(checkpoints.folder / CLIENTS, saved.round if saved else 0)
    if saved:
        print(f"{run} goes on after round {saved.round}")
    else:
        print(f"{run} has no checkpoint, so it begins anew")
    return saved


def telemetry(saved: Saved | None) -> tuple[list[dict[str, float]], Mapping[str, Any]] | None:
    """What the recorder of a run that goes on needs."""
    return (saved.rows, saved.server["telemetry"]) if saved else None
