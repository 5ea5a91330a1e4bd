"""The step log, and the line of times."""

import math
from collections.abc import Mapping

import pytest
import torch

from fedsparse.tasks import Task
from fedsparse.telemetry.step_log import StepEntry, StepLog, StepTable
from fedsparse.telemetry.tags import STAGES, seconds_by_part
from fedsparse.telemetry.time_line import time_lines
from fedsparse.telemetry.timers import StageTimer


class Language(Task):
    metrics: Mapping[str, str] = {"perplexity": ".1f", "accuracy": ".2%"}
    unit = "tokens"

    def derived(self, loss: float) -> dict[str, float]:
        return {"perplexity": math.exp(loss)}


class Clock(StageTimer):
    """A timer of which every step takes 5 ms of forward and 1 ms of data."""

    steps = 0

    def seconds(self) -> dict[str, float]:
        return {"forward": 0.005 * self.steps, "data": 0.001 * self.steps}


def test_an_entry_has_the_mean_and_the_rate_of_the_steps_since_the_entry_before() -> None:
    entries: list[StepEntry] = []
    clock = Clock()
    log, total = StepLog(2, clock, entries.append), 0.0
    for losses in ([1.0], [3.0, 5.0], [7.0], [9.0, 9.0], [100.0]):  # of the predictions of each step
        clock.steps += 1
        total += sum(losses)
        log.count(torch.tensor(total), (1, 3, 4, 6, 7)[log.step])
    assert [(e.step, e.loss) for e in entries] == [(2, pytest.approx(3)), (4, pytest.approx(25 / 3))]
    assert [e.rate for e in entries] == pytest.approx([3 / 0.012] * 2)
    assert [(e.forward, e.backward) for e in entries] == [(pytest.approx(0.005), 0.0)] * 2


def test_clients_and_rounds_follow_one_another_in_tensorboard_and_lines_fit_80_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    written: list[tuple[str, float, int]] = []
    table = StepTable(Language(), lambda *scalar: written.append(scalar))
    for round in (1, 2):
        for client in ("7", "12345"):
            for step in (40, 80):
                table.show(round, client, StepEntry(step, math.log(50), 123456.7, 1.5, 0.0123, 0.0004))
            table.finish(90)
    steps = [step for tag, _, step in written if tag == "step/perplexity"]
    assert steps == [40, 80, 130, 170, 220, 260, 310, 350]
    assert {tag for tag, _, _ in written} == {
        f"step/{name}" for name in ("loss", "perplexity", "tokens_per_second", "forward", "backward", "optimizer")
    }
    heading, line, *rest = capsys.readouterr().out.splitlines()
    assert heading.split() == ["client", "step", "loss", "perplexity", "tokens/s", "forward", "backward", "optimizer"]
    assert line.split() == ["7", "40", "3.912", "50.0", "123457", "1500.0", "ms", "12.3", "ms", "0.4", "ms"]
    assert rest.count(heading) == 1
    assert max(map(len, [heading, line, *rest])) <= 80


def test_every_stage_but_evaluation_belongs_to_one_part_of_the_time() -> None:
    row = {f"time/{stage}": 1.0 for stage in (*STAGES, "transfer", "round", "simulated")}
    assert seconds_by_part(row) == {"forward": 2, "backward": 1, "compress": 6, "transfer": 1, "update": 3}
    assert seconds_by_part({"time/evaluate": 1.0, "time/decode": 2.0}) == {"compress": 2.0}


def test_the_line_of_times_adds_up_and_breaks_only_between_numbers() -> None:
    parts = {"forward": 15.3, "backward": 18.5, "compress": 2.1, "transfer": 6.8, "update": 2.5}
    (line,) = time_lines(parts, 0.0501, 0.0023, 200)
    assert line == (
        "time 45.2 s (forward 15.3, backward 18.5, compress 2.10, transfer 6.80, update 2.50)"
        "  overhead: compress 4.6 %, transfer 15.0 %  kept 0.0501  threshold error 0.0023"
    )
    assert time_lines(parts, 0.0501, 0.0023, 80) == [
        "time 45.2 s (forward 15.3, backward 18.5, compress 2.10, transfer 6.80,",
        "update 2.50)  overhead: compress 4.6 %, transfer 15.0 %  kept 0.0501",
        "threshold error 0.0023",
    ]
    assert time_lines({"forward": 1.0}, None, None, 80) == ["time 1.00 s (forward 1.00)"]
    assert time_lines({}, 1.0, None, 80) == []
