"""`run-app`: somebody's Flower app on LocalGrid, from Python and from the command line."""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsparse.commands import main
from fedsparse.errors import ConfigError, RunFailed
from tests.fedsparse.flower.somebodys_app import (
    CLIENT,
    OLD_CLIENT,
    OLD_SERVER,
    PYPROJECT,
    STRATEGIES,
    Run,
    final,
    rows,
    write_app,
)


def test_messages_of_every_kind_reach_the_app_with_its_mods_and_node_config(
    tmp_path: Path, home: Path, run: Run
) -> None:
    done = run(write_app(tmp_path / "app"))
    assert [row["messages"] for row in rows(done, "query.size")] == [1, 3]
    assert rows(done, "query.size")[0]["metrics"]["partitions"] == 4
    assert [(row["round"], row["messages"]) for row in rows(done, "train")] == [(1, 2), (2, 2)]
    assert [row["metrics"]["round"] for row in rows(done, "train")] == [1, 2]
    assert rows(done, "evaluate")[0]["metrics"]["marks"] == 2
    assert (home / "notes.txt").read_text().split() == ["begin", "end"]


def test_the_same_seed_gives_the_same_bits_with_one_worker_and_with_two(tmp_path: Path, home: Path, run: Run) -> None:
    app, finals = write_app(tmp_path / "app"), []
    for options in ({}, {}, {"workers": 2}, {"seed": 1}):
        run(app, **options)
        finals.append(final(home).tobytes())
    assert finals[0] == finals[1] == finals[2] != finals[3]


def test_the_apps_modules_are_its_own_and_are_forgotten_afterwards(tmp_path: Path, home: Path, run: Run) -> None:
    for app, number in (("one", 1.0), ("two", 2.0)):
        written = STRATEGIES.replace("result.arrays.to_numpy_ndarrays()[0]", f"np.full(1, {number})")
        run(write_app(tmp_path / app, strategies=written))
        assert final(home) == number
    assert "strategies" not in sys.modules or sys.modules["strategies"].__file__ != str(tmp_path / "two/strategies.py")
    assert not [path for path in sys.path if path.startswith(str(tmp_path))]


def test_the_run_folder_has_the_counts_of_every_message(tmp_path: Path, run: Run) -> None:
    done = run(write_app(tmp_path / "app"))
    array = 128 + 3 * 8  # NumPy's header, and three numbers
    train = rows(done, "train")[0]
    assert train["downlink-bytes"] == 2 * (len("0") + array + len("server-round") + 8)
    assert train["uplink-bytes"] == 2 * (
        len("0") + array + sum(8 + len(n) for n in ("num-examples", "calls", "round", "marks"))
    )
    result = json.loads((done.folder / "result.json").read_text())
    assert result["summary"]["kinds"]["train"]["uplink-bytes"] == 2 * train["uplink-bytes"]
    assert result["summary"]["ended"] == "complete"
    with (done.folder / "messages.csv").open() as file:
        read = [row for row in csv.DictReader(file) if row["kind"] == "train"]
    assert [int(row["downlink-bytes"]) for row in read] == [row["downlink-bytes"] for row in rows(done, "train")]
    assert list(done.folder.glob("events.*"))


def test_run_config_replaces_the_apps_defaults(tmp_path: Path, home: Path, run: Run) -> None:
    app = write_app(tmp_path / "app")
    (tmp_path / "other.toml").write_text('rounds = 3\n[client]\norder = "work"\n')
    assert len(rows(run(app, "rounds=1 step=0.0"), "train")) == 1
    assert len(rows(run(app, {"rounds": 1}), "train")) == 1
    assert len(rows(run(app, str(tmp_path / "other.toml")), "train")) == 3


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("epochs=1", "the app has no setting 'epochs'; pyproject.toml has rounds, step, client.order"),
        ("rounds 1", "'rounds 1' is not of the form key=value"),
        ("rounds=one", "invalid format"),
        ("nowhere.toml", "No such file"),
    ],
)
def test_a_mistake_in_the_run_config_is_one_line(tmp_path: Path, run: Run, given: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as error:
        run(write_app(tmp_path / "app"), given)
    assert "\n" not in str(error.value)


def test_the_number_of_nodes_is_the_users_or_the_apps_or_flowers_or_ten(
    tmp_path: Path, home: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    app = write_app(tmp_path / "app")

    def nodes(**options: Any) -> int:
        return sum(row["messages"] for row in rows(run(app, "rounds=1", **options), "query.size"))

    assert nodes(num_supernodes="") == 10
    assert "10 SuperNodes (by default" in capsys.readouterr().out
    (tmp_path / "flwr").mkdir()
    here = '[superlink]\ndefault = "here"\n[superlink.here]\noptions.num-supernodes = 3\n'
    (tmp_path / "flwr" / "config.toml").write_text(here)
    assert nodes(num_supernodes="") == 3
    for wrong in ("federations = 3", "federations.default = 'a'\nfederations.a.options = 3"):
        (app / "pyproject.toml").write_text(
            PYPROJECT.replace("[tool.flwr.app]", f"[tool.flwr]\n{wrong}\n[tool.flwr.app]")
        )
        assert nodes(num_supernodes="") == 3
    older = '[tool.flwr.federations]\ndefault = "a"\n[tool.flwr.federations.a]\noptions.num-supernodes = 5\n'
    (app / "pyproject.toml").write_text(PYPROJECT + older)
    assert nodes(num_supernodes="") == 5
    assert nodes(num_supernodes=2) == 2


def test_a_client_that_fails_changes_no_state_and_is_counted(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(write_app(tmp_path / "app"), 'client.order="fail once"', num_supernodes=2)
    assert re.search(r"; 1 failed, client \d: ValueError: as told$", capsys.readouterr().out, re.MULTILINE)
    assert [row["failed"] for row in rows(done, "train")] == [1, 0]
    assert rows(done, "train")[1]["metrics"]["calls"] == 1.5  # the second call of one client, the first of the other
    assert "as told" in (done.folder / "log.txt").read_text()


def test_a_client_that_is_slower_than_the_servers_timeout_is_missed_and_costs_no_other_client(
    tmp_path: Path, home: Path, run: Run
) -> None:
    slow = CLIENT.replace(
        "def evaluate(message, context):",
        "def evaluate(message, context):\n    import time; time.sleep(0.5 * (context.node_id == 0))",
    )
    app = write_app(
        tmp_path / "app", client=slow, strategies=STRATEGIES.replace("start, num", "start, timeout=0.4, num")
    )
    assert [row["failed"] for row in rows(run(app, "rounds=1"), "evaluate")] == [1]


def test_a_run_in_which_no_client_answers_has_failed(tmp_path: Path, home: Path, run: Run) -> None:
    silent = CLIENT.replace("def size(message, context):", "def size(message, context):\n    raise ValueError('no')")
    with pytest.raises(RunFailed, match="no client has answered: client 1: ValueError: no"):
        run(
            write_app(tmp_path / "app", client=silent, strategies=STRATEGIES.replace("np.save", "0 and np.save")),
            'client.order="fail" rounds=0',
        )
    (folder,) = (home / "runs").iterdir()
    assert json.loads((folder / "result.json").read_text())["summary"]["ended"] == "failed"


def test_a_server_that_raises_is_one_line_and_its_traceback_is_in_the_log(tmp_path: Path, home: Path, run: Run) -> None:
    broken = STRATEGIES.replace("np.save(", "1 / 0 #")
    with pytest.raises(RunFailed, match=r"^the ServerApp failed: ZeroDivisionError: .* \(strategies\.py, line \d+\)"):
        run(write_app(tmp_path / "app", strategies=broken))
    (log,) = (home / "runs").glob("*/log.txt")
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("replaced", "line"),
    [
        ({"pyproject": "[project"}, r"pyproject\.toml: .*\(at "),
        ({"pyproject": "[project]\nname = 'x'\n"}, r'Property "version" missing in \[project\]; Missing'),
        ({"pyproject": PYPROJECT.replace("strategies:app", "strategies")}, "Missing attribute in strategies"),
        ({"pyproject": PYPROJECT.replace("rounds = 2", "rounds = [2]")}, "The value for key rounds"),
        ({"pyproject": PYPROJECT.replace('"strategies:app"', "3")}, r"pyproject\.toml: .*'partition'"),
        ({"pyproject": "tool = 3"}, r"pyproject\.toml: .*'int'"),
        (
            {"pyproject": PYPROJECT.replace("strategies:app", "nowhere:app")},
            "nowhere:app: there is no module 'nowhere'$",
        ),
        ({"strategies": "import not_installed"}, r"no module 'not_installed'; does the app's `pip install -e \.`"),
        ({"strategies": "app = 1"}, "strategies:app is of type int, and should be a ServerApp"),
        ({"strategies": "1 / 0"}, r"strategies:app: ZeroDivisionError: division by zero \(strategies\.py, line 1\)"),
        ({"client": "raise SystemExit(3)"}, r"clients\.main:wrapper\.app: SystemExit: 3"),
        ({"client": "app = 1"}, r"clients\.main:wrapper\.app: AttributeError: .* 'wrapper'"),
    ],
)
def test_a_mistake_in_the_app_is_one_line(tmp_path: Path, run: Run, replaced: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigError, match=line) as error:
        run(write_app(tmp_path / "app", **replaced))
    assert "\n" not in str(error.value)
    assert not Path("runs").exists()


def test_the_command_line_runs_an_app_and_refuses_what_an_app_does_not_have(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = str(write_app(tmp_path / "app"))
    assert main(["run-app", app, "--num-supernodes", "3", "--run-config", "rounds=1", "--workers", "1"]) == 0
    assert "round 1 train: 2 messages, " in capsys.readouterr().out
    for arguments, line in (
        ([app, "--lr", "0.1"], "lr is no setting of run-app"),
        ([app, "--num-supernodes", "0"], "num-supernodes = 0 of --num-supernodes: should be a whole number above 0"),
        ([app, "--workers", "0"], "workers = 0"),
        ([app, "--journal-gb", "much"], "journal-gb = much: should be a number"),
        ([app, "--journal-gb", "-1"], "journal-gb = -1: should be a number"),
        ([app, "--resume", "nowhere"], r"it has no app.json"),
        (["nowhere"], "nowhere is not the folder of a Flower app"),
        (["~nobody/app"], "~nobody/app is not the folder of a Flower app"),
        ([f"{app}/pyproject.toml"], "pyproject.toml is not the folder of a Flower app"),
        (["@flwrlabs/app"], "run-app runs apps of this machine"),
        ([], "run-app needs a PATH"),
    ):
        assert main(["run-app", *arguments]) == 2
        assert line in (said := capsys.readouterr().err)
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_an_app_of_flowers_older_kind_runs_too(tmp_path: Path, home: Path, run: Run, workers: int) -> None:
    done = run(write_app(tmp_path / "app", client=OLD_CLIENT, strategies=OLD_SERVER), workers=workers)
    assert sum(row["messages"] for row in rows(done, "train")) == 8
    assert done.summary["failed"] == 0
    np.testing.assert_allclose(final(home), 2 * (1 + (0 + 1 + 2 + 3) / 4))
