"""Trackers get every round, the figures and the end; one that is missing or fails costs one line."""

import importlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.telemetry.recorder import Recorder
from fedsparse.telemetry.trackers import Run, trackers_of

FAKES = {
    "wandb": """
calls = []
class Settings:
    project = None
class Image:
    def __init__(self, data_or_path): pass
class Run:
    id = "7"
    def log(self, data, step=None): calls.append(("log", data, step))
    def finish(self, exit_code=None): calls.append(("finish", exit_code))
def init(project=None, dir=None, id=None, name=None, config=None, reinit=None, resume=None):
    calls.append(("init", project, name, config, id, resume))
    return Run()
""",
    "trackio": """
calls = []
class Run:
    def log(self, metrics, step=None): calls.append(("log", metrics, step))
    def finish(self): calls.append(("finish",))
def init(project, name=None, config=None, resume="never", embed=True):
    calls.append(("init", project, name, config, None, resume))
    return Run()
""",
    "mlflow": """
import sys, types
calls = []
class Metric:
    def __init__(self, key, value, timestamp, step): self.key, self.value, self.step = key, value, step
class Param:
    def __init__(self, key, value): self.key, self.value = key, value
entities = types.ModuleType("mlflow.entities")
entities.Metric, entities.Param = Metric, Param
sys.modules["mlflow.entities"] = entities
__path__ = []
class MlflowClient:
    def __init__(self, tracking_uri=None): pass
    def get_experiment_by_name(self, name): return None
    def create_experiment(self, name, artifact_location=None): return "1"
    def create_run(self, experiment_id, run_name=None):
        calls.append(("init", "fedsparse", run_name, {}, None, None))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="7"))
    def log_batch(self, run_id, metrics=(), params=()):
        assert len(params) <= 100
        calls[0][3].update({p.key: p.value for p in params})
        if metrics: calls.append(("log", {m.key: m.value for m in metrics}, metrics[0].step))
    def log_figure(self, run_id, figure, artifact_file): calls.append(("log", {artifact_file: figure}, 0))
    def set_terminated(self, run_id, status=None): calls.append(("finish", status))
""",
}
"""Of each library what a tracker calls, with the library's own names of arguments."""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a library that notes its calls."""

    def known() -> list[str]:
        return [m for m in sys.modules if m.partition(".")[0] in FAKES or m.endswith(tuple(f".{n}_run" for n in FAKES))]

    def make(name: str, code: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        for module in known():
            monkeypatch.delitem(sys.modules, module)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield make
    for module in known():  # before monkeypatch gives back the real ones
        del sys.modules[module]


def play(folder: Path, tracker: str, saved: Any = None, error: type[BaseException] | None = None) -> Any:
    """Three rounds; returns the state after the second."""
    folder.mkdir(exist_ok=True)
    state = None
    with Recorder(
        {**Config.from_mapping({}).flat(), "tracker": tracker, "lr": 0.5}, folder, "", 2, 1, saved=saved
    ) as recorder:
        recorder.figure("partition", Figure())
        for round in (0, 1):
            recorder.record(round, {"eval/accuracy": 0.25 * round, "eval/loss": 1.0, "comm/uplink_bytes": 40.0})
        state = recorder.save()
        recorder.record(2, {"train/loss": 0.5, "weights/hash": 5.0})
        if error:
            raise error
    return recorder.rounds[:2], state


@pytest.mark.parametrize("name", FAKES)
def test_a_service_gets_settings_rounds_and_the_end(name: str, fake: Any, tmp_path: Path) -> None:
    module = fake(name, FAKES[name])
    play(tmp_path / "run", name)
    (_, project, run, config, _, _), *logged, end = module.calls
    assert (project, run, str(config["lr"])) == ("fedsparse", "run", "0.5")
    rounds = [(data, step) for kind, data, step in logged if kind == "log" and "system/rss_mb" in data]
    assert [step for _, step in rounds] == [0, 1, 2]
    assert (rounds[1][0]["eval/accuracy"], rounds[2][0]["train/loss"]) == (0.25, 0.5)
    assert not any("weights/hash" in data for data, _ in rounds)
    assert end in (("finish",), ("finish", 0), ("finish", "FINISHED"))
    with pytest.raises(RuntimeError):
        play(tmp_path / "run", name, error=RuntimeError)
    assert module.calls[-1] in (("finish",), ("finish", 1), ("finish", "FAILED"))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_run_that_goes_on_is_the_same_run_of_the_service(name: str, fake: Any, tmp_path: Path) -> None:
    module = fake(name, FAKES[name])
    play(tmp_path / "run", name, saved=play(tmp_path / "run", name))
    first, second = (call for call in module.calls if call[0] == "init")
    assert first[2] == second[2]
    assert second[-2:] == (("7" if name == "wandb" else None), "allow")


def test_runs_that_begin_at_once_are_in_one_experiment_of_mlflow(fake: Any, tmp_path: Path) -> None:
    slow = 'time.sleep(0.1); calls.append("created"); return "1"'
    known = 'return types.SimpleNamespace(experiment_id="1") if "created" in calls else None'
    code = FAKES["mlflow"].replace('return "1"', slow).replace("return None", known)
    module = fake("mlflow", "import time\n" + code.replace("calls[0][3].update", "dict().update"))
    make = trackers_of(["mlflow"])["mlflow"]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: make(Run(tmp_path / name, Config.from_mapping({}), "eval/accuracy")), "ab"))
    assert module.calls.count("created") == 1


def test_a_service_that_fails_in_the_middle_is_left_out_and_the_run_goes_on(
    fake: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake("trackio", FAKES["trackio"].replace('calls.append(("log", metrics, step))', 'raise OSError("no network")'))
    rows, _ = play(tmp_path / "run", "tensorboard,trackio")
    assert len(rows) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "tracker = trackio: the run goes on without it: OSError: no network"
    ]


def test_a_service_that_cannot_start_is_one_line(fake: Any, tmp_path: Path) -> None:
    fake("wandb", FAKES["wandb"].replace("return Run()", 'raise RuntimeError("log in first\\nand so on")'))
    with pytest.raises(ConfigError, match=r"^tracker = wandb: RuntimeError: log in first$"):
        play(tmp_path / "run", "wandb")


def test_a_tracker_of_ones_own_that_lacks_a_method_is_one_line_before_the_first_round(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from fedsparse.telemetry.trackers import Tracker\nclass Own(Tracker):\n    def round(self, round, row): pass\n"
    )
    with pytest.raises(ConfigError, match=r"^tracker = .*own\.py:Own: .*abstract.*finish"):
        play(tmp_path / "run", f"{own}:Own")


def test_where_a_service_cannot_start_those_that_have_started_are_finished(fake: Any, tmp_path: Path) -> None:
    fake("wandb", FAKES["wandb"].replace("return Run()", 'raise RuntimeError("log in first")'))
    module = fake("trackio", FAKES["trackio"])
    with pytest.raises(ConfigError, match=r"^tracker = wandb: RuntimeError: log in first$"):
        play(tmp_path / "run", "tensorboard,trackio,wandb")
    assert module.calls[-1] == ("finish",)
    board = EventAccumulator(str(tmp_path / "run")).Reload()
    assert board.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.plugin_name == "hparams"  # what it writes at last


def test_layers_are_measured_only_where_a_tracker_shows_them(fake: Any, tmp_path: Path) -> None:
    fake("trackio", FAKES["trackio"])
    (tmp_path / "own.py").write_text(
        "from fedsparse.telemetry.trackers import Tracker\n"
        "class Own(Tracker):\n"
        "    def round(self, round, row): pass\n"
        "    def finish(self, summary): pass\n"
        "class Detailed(Own):\n"
        "    def details(self, round, details): pass\n"
    )
    own, detailed = (f"{tmp_path / 'own.py'}:{name}" for name in ("Own", "Detailed"))
    for tracker, shows in {"": False, "tensorboard": True, f"trackio,{own}": False, f"{own},{detailed}": True}.items():
        (tmp_path / "run").mkdir(exist_ok=True)
        with Recorder({"tracker": tracker}, tmp_path / "run", "", 1, 1) as recorder:
            assert recorder.shows_details == shows, tracker


def test_a_tracker_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^tracker = mlflow: is not installed; pip install mlflow"):
        trackers_of(["mlflow"])


@pytest.mark.parametrize(("given", "meant"), [("tensorboard, wandb", "tensorboard,wandb"), (" ", "")])
def test_trackers_are_a_list_with_commas(given: str, meant: str) -> None:
    assert Config.from_mapping({"tracker": given}).tracker == meant


@pytest.mark.parametrize("given", [",", "tensorboard,", "tensorboard,,wandb"])
def test_a_comma_without_a_tracker_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=f"^tracker = {given}: should be tensorboard, mlflow"):
        Config.from_mapping({"tracker": given})


def test_an_unknown_tracker_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean wandb"):
        Config.from_mapping({"tracker": "tensorboard,wandbb"})


def test_without_trackers_the_folder_has_its_files_alone(tmp_path: Path) -> None:
    play(tmp_path / "run", "")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.yaml", "provenance.json", "rounds.csv", "result.json", "partition.png"}


def test_tensorboard_shows_settings_that_have_an_effect_beside_the_last_numbers(tmp_path: Path) -> None:
    play(tmp_path / "run", "tensorboard")
    assert {path.parent for path in tmp_path.rglob("events*")} == {
        tmp_path / "run"
    }  # TensorBoard lists folders as runs
    board = EventAccumulator(str(tmp_path / "run")).Reload()
    content = board.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    settings = parse_session_start_info_plugin_data(content).hparams
    assert settings["lr"].number_value == 0.5
    assert settings["augment"].string_value == "false"
    assert "logdir" not in settings
    assert "beta" not in settings  # the distribution is iid
    shown = sorted(board.Tags()["scalars"])[:5]  # as columns
    last = {tag.removeprefix("at the end/"): board.Scalars(tag)[-1].value for tag in shown}
    assert last.keys() == {"accuracy", "loss", "uplink-bytes", "downlink-bytes", "seconds"}
    assert (last["accuracy"], last["uplink-bytes"]) == (0.25, 80)


def test_tensorboard_has_the_changed_settings_and_a_layout_of_charts_that_have_curves(tmp_path: Path) -> None:
    play(tmp_path / "run", "tensorboard")
    board = EventAccumulator(str(tmp_path / "run")).Reload()
    (text,) = board.Tensors("config/text_summary")
    assert b"| lr | 0.5 | 0.1 |" in text.tensor_proto.string_val[0]
    assert b"| logdir" not in text.tensor_proto.string_val[0]
    assert "custom_scalars__config__" in board.Tags()["tensors"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_the_real_service_takes_a_run_without_a_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("WANDB_ERROR_REPORTING", "WANDB_MODE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(key, {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}.get(key, "true"))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip(name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    play(tmp_path / "run", name, saved=play(tmp_path / "run", name))
    written = {"wandb": "run/wandb/offline-run-*/*.wandb", "mlflow": "mlflow.db", "trackio": "trackio/*.db"}
    assert list(tmp_path.glob(written[name]))
