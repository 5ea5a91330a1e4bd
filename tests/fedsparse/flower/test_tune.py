"""`tune`: the codec for somebody's app, from short runs of the app."""

import re
from pathlib import Path
from typing import Any

import pytest

from fedsparse.commands import main
from fedsparse.flower import CompressMod, run_app
from fedsparse.flower.app_trial import ROUNDS, Trial, Updates, trial
from fedsparse.flower.candidates import candidates, measured
from tests.fedsparse.flower.somebodys_app import OLD_CLIENT, OLD_SERVER, PYPROJECT, write_app

SERVER = """
import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from fedsparse.flower import CompressedStrategy

app = ServerApp()

def evaluate(round, arrays):
    return MetricRecord({"central-loss": float(np.square(arrays.to_numpy_ndarrays()[0]).mean())})

@app.main()
def main(grid, context):
    strategy = FedAvg(fraction_train=0.5)
    start = ArrayRecord([np.ones(2000, np.float32)])
    strategy.start(grid, start, num_rounds=context.run_config["rounds"], evaluate_fn=None)
    with open("uplink.txt", "w") as file:
        print(getattr(strategy, "uplink_bytes", 0), file=file)
"""
CLIENT = """
import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from fedsparse.flower import CompressMod

class wrapper:
    app = ClientApp()

def loss(weights):
    return MetricRecord({"num-examples": 10, "loss": float(np.square(weights).mean())})

@wrapper.app.train()
def train(message, context):
    weights = message.content["arrays"].to_numpy_ndarrays()[0]
    scale = np.random.default_rng(context.node_id).pareto(1, weights.shape) + 0.01
    weights = (weights * (1 - scale / (1 + scale) / 4)).astype(np.float32)
    return Message(RecordDict({"arrays": ArrayRecord([weights]), "metrics": loss(weights)}), reply_to=message)

@wrapper.app.evaluate()
def evaluate(message, context):
    return Message(RecordDict({"metrics": loss(message.content["arrays"].to_numpy_ndarrays()[0])}), reply_to=message)
"""
STEPS = (
    """weights = (20000 * np.random.default_rng(context.node_id).choice([-1, 1], weights.shape)).astype(np.float16)"""
)
SIZE = 8000 + 128
"""Bytes of the array."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")


def app_in(folder: Path, line: str = "", server: str = SERVER, client: str = CLIENT) -> str:
    """An app of eight rounds whose metric is the loss; with the two lines where one is given."""
    if line:
        client = client.replace("ClientApp()", f"ClientApp(mods=[{line}])")
        server = server.replace("FedAvg(fraction_train=0.5)", "CompressedStrategy(FedAvg(fraction_train=0.5))")
    written = PYPROJECT.replace("rounds = 2", "rounds = 8")
    return str(write_app(folder, pyproject=written, strategies=server, client=client))


def tried(app: str, mod: CompressMod | None, rounds: int = 4, **options: Any) -> tuple[Trial, Updates]:
    updates = Updates()
    done = trial(app, mod, rounds, updates, logdir=Path("runs"), name="trial", num_supernodes=4, **options)
    return done, updates


@pytest.mark.parametrize("line", ['CompressMod("hggtopk", density=0.05)', 'CompressMod("eden")'])
def test_a_trial_has_the_bytes_and_the_bits_of_the_app_with_the_two_lines(tmp_path: Path, line: str) -> None:
    mod: CompressMod = eval(line)
    done, _ = tried(app_in(tmp_path / "plain"), mod)
    real = run_app(app_in(tmp_path / "edited", line), "rounds=4", num_supernodes=4)
    assert done.metrics["evaluate/loss"] == real.rows[-1]["metrics"]["loss"]
    assert done.uplink == int(Path("uplink.txt").read_text())
    assert (done.rounds, done.replies) == (4, 8)


def test_what_a_run_left_in_a_state_folder_is_not_for_another_run(tmp_path: Path) -> None:
    app = app_in(tmp_path / "app", f'CompressMod("topk", density=0.05, state_folder="{tmp_path}/state")')
    one, two = (run_app(app, "rounds=4", num_supernodes=4).rows[-1]["metrics"]["loss"] for _ in range(2))
    assert one == two


def test_a_trial_of_an_app_that_has_the_two_lines_is_that_of_the_app_without_them(tmp_path: Path) -> None:
    plain, edited = app_in(tmp_path / "plain"), app_in(tmp_path / "edited", 'CompressMod("stc")')
    for mod in (None, CompressMod("hggtopk", density=0.05)):
        assert tried(plain, mod)[0] == tried(edited, mod)[0]


def test_a_trial_without_a_codec_is_the_app_itself_and_keeps_its_updates(tmp_path: Path) -> None:
    app = app_in(tmp_path / "app")
    done, updates = tried(app, None)
    real = run_app(app, "rounds=4", num_supernodes=4)
    assert done.metrics["evaluate/loss"] == real.rows[-1]["metrics"]["loss"]
    assert done.uplink == 8 * SIZE
    assert updates.of
    assert all(1 <= len(rounds) <= ROUNDS for rounds in updates.of.values())
    assert all(update.max() <= 0 and update.shape == (2000,) for rounds in updates.of.values() for update in rounds)


def test_candidates_meet_the_limit_with_the_smallest_error(tmp_path: Path) -> None:
    _, updates = tried(app_in(tmp_path / "app"), None)
    tight, loose = ({c.mod.config.compressor: c for c in candidates(limit, updates)} for limit in (300, 3000))
    assert tight["hggtopk"].bytes <= 300 < loose["hggtopk"].bytes <= 3000
    assert tight["hggtopk"].error > loose["hggtopk"].error
    others = [measured("stc", {"density": density}, updates) for density in (0.1, 0.3, 0.8)]
    assert loose["stc"].error <= min(other.error for other in others)
    assert tight["eden"].bytes == loose["eden"].bytes > 300  # it has no density


def test_tune_prints_two_lines_that_meet_the_budget_and_leaves_the_app_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = app_in(tmp_path / "app")
    before = {file: file.read_bytes() for file in Path(app).rglob("*.py")}
    assert main(["tune", app, "--times", "20", "--short", "2", "--rounds", "8", "--num-supernodes", "4"]) == 0
    said = capsys.readouterr().out
    assert {file: file.read_bytes() for file in Path(app).rglob("*.py")} == before
    line = re.search(r"^app = ClientApp\(mods=\[(.*)\]\) ", said, re.MULTILINE)
    assert line
    assert "strategy = CompressedStrategy(...)" in said
    run_app(app_in(tmp_path / "edited", line[1]), num_supernodes=4)
    assert 0 < int(Path("uplink.txt").read_text()) <= 16 * SIZE / 20
    assert "| after 4 rounds | uplink a round | evaluate/loss |" in said
    assert "INFO" not in said
    assert "round 1 train" not in said


def test_the_servers_own_evaluation_decides_and_a_codec_whose_run_fails_is_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = SERVER.replace("evaluate_fn=None", "evaluate_fn=evaluate")
    strict = strict.replace(
        "    return MetricRecord", "    assert not round or 1 not in arrays['0']\n    return MetricRecord"
    )
    strict = strict.replace("arrays['0']", "arrays.to_numpy_ndarrays()[0]")
    app = app_in(tmp_path / "app", server=strict)
    assert main(["tune", app, "--uplink", "40kB", "--rounds", "50", "--short", "1", "--num-supernodes", "4"]) == 0
    said = capsys.readouterr().out
    assert "server/central-loss after 2 rounds" in said
    assert "| | the ServerApp failed: AssertionError" in said


def test_a_codec_whose_replies_are_refused_is_out_and_the_race_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps of 20000 of float16 weights: a codec that adds what it kept to the next step goes beyond their range."""
    client = CLIENT.replace("weights = (weights * (1 - scale / (1 + scale) / 4)).astype(np.float32)", STEPS)
    server = SERVER.replace("np.ones(2000, np.float32)", "np.zeros(2000, np.float16)")
    client = client.replace("np.square(weights)", "np.square(weights, dtype=np.float32)")
    app = app_in(tmp_path / "app", client=client, server=server)
    assert main(["tune", app, "--times", "4", "--short", "2", "--num-supernodes", "4"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"\| \| a reply is refused: a change of [0-9.e+]* could take its float16 beyond 65504 \|", said)
    assert re.search(r"^app = ClientApp", said, re.MULTILINE)


def test_a_strategy_that_votes_by_coordinate_gets_a_codec_that_sends_every_coordinate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = SERVER.replace("FedAvg", "FedMedian")
    flags = ["--times", "20", "--short", "1", "--num-supernodes", "4"]
    assert main(["tune", app_in(tmp_path / "app", server=server), *flags]) == 0
    said = capsys.readouterr().out
    (line,) = re.findall(r"^app = ClientApp\(mods=\[(.*)\]\) ", said, re.MULTILINE)
    assert "strategy = CompressedStrategy(..., every_coordinate=True)  # the server" in said
    assert "density" not in said
    edited = app_in(tmp_path / "edited", line, server.replace("strategy = Fed", "strategy = CompressedStrategy(Fed"))
    strategies = Path(edited) / "strategies.py"
    strategies.write_text(
        strategies.read_text().replace("(fraction_train=0.5)", "(fraction_train=0.5), every_coordinate=True)")
    )
    assert run_app(edited, "rounds=1", num_supernodes=4).rows[0]["failed"] == 0
    assert main(["tune", edited, "--times", "1000"]) == 1
    assert "nothing with every coordinate, as the strategy needs, meets the budget" in capsys.readouterr().err


def test_a_strategy_that_no_codec_fits_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clipping = "DifferentialPrivacyClientSideFixedClipping"
    server = SERVER.replace("import FedAvg", f"import FedAvg, {clipping}")
    server = server.replace("FedAvg(fraction_train=0.5)", f"{clipping}(FedAvg(), 1.0, 1.0, 4)")
    assert main(["tune", app_in(tmp_path / "app", server=server), "--times", "9", "--num-supernodes", "4"]) == 2
    assert capsys.readouterr().err.startswith(f"fedsparse: {clipping}: a residual and a lossy coding change the norm")


@pytest.mark.parametrize(
    ("client", "flags", "line"),
    [
        (CLIENT, ["--times", "9999"], "nothing meets the budget, "),
        (CLIENT.replace("weights * (1", "np.nan * (1"), ["--times", "9"], "no reply .* has arrays of finite numbers"),
        (CLIENT.replace('"loss"', '"x"'), ["--times", "9"], "no metric can decide, .* the app has evaluate/x, train/x"),
    ],
)
def test_where_nothing_can_be_recommended_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], client: str, flags: list[str], line: str
) -> None:
    assert main(["tune", app_in(tmp_path / "app", client=client), *flags, "--short", "1"]) == 1
    assert re.search(line, said := capsys.readouterr().err)
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "tune needs one budget"),
        (["--times", "9", "--uplink", "1MB", "--rounds", "9"], "tune needs one budget"),
        (["--uplink", "1MB"], "how many --rounds has it"),
        (["--uplink", "much", "--rounds", "9"], "--uplink much: should be a number of bytes"),
        (["--uplink", "1 MB more", "--rounds", "9"], "--uplink 1 MB more: should be a number of bytes"),
        (["--times", "0.5"], "times = 0.5: should be a number from 1"),
        (["--times", "9", "--short", "0"], "short = 0: should be a whole number above 0"),
        (["--times", "9", "--lr", "1"], "lr is no setting of tune"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], line: str) -> None:
    assert main(["tune", app_in(tmp_path / "app"), *flags]) == 2
    assert line in (said := capsys.readouterr().err)
    assert len(said.splitlines()) == 1
    assert not Path("runs").exists()


def test_an_app_of_flowers_older_kind_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = app_in(tmp_path / "app", server=OLD_SERVER, client=OLD_CLIENT)
    assert main(["tune", app, "--times", "9"]) == 2
    assert "of Flower's older kind" in capsys.readouterr().err
