"""`run-app --resume`: a run of somebody's app that was stopped goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedsparse.errors import ConfigError, RunFailed
from tests.fedsparse.flower.somebodys_app import STRATEGIES, Run, final, rows, write_app


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_run_goes_on_with_the_bits_of_a_run_that_was_not_killed(
    tmp_path: Path, home: Path, run: Run, workers: str
) -> None:
    app = write_app(tmp_path / "app")
    (home / "died").touch()
    whole = run(app, 'client.order="die" rounds=3')
    expected = final(home)
    (home / "died").unlink()
    command = [sys.executable, "-m", "fedsparse", "run-app", str(app), "--num-supernodes", "4", "--name", "killed"]
    killed = subprocess.run([*command, "--run-config", 'client.order="die" rounds=3'], capture_output=True)
    assert killed.returncode == -9
    (folder,) = (home / "runs").glob("*-killed")
    done = run(app, 'client.order="die" rounds=3', resume=folder, workers=int(workers))
    assert final(home).tobytes() == expected.tobytes()
    counted = [{**row, "seconds": 0} for row in done.rows]
    assert counted == [{**row, "seconds": 0} for row in whole.rows]
    assert not (folder / "journal").exists()


def stopped_run(app: Path, run: Run) -> Path:
    """The folder of a run whose server stops after its first round."""
    with pytest.raises(KeyboardInterrupt):
        run(app, "rounds=2")
    (folder,) = Path("runs").iterdir()
    return folder


STOPPING = STRATEGIES.replace(
    "    strategy = FedAvg(",
    """    class Stopping(FedAvg):
        def aggregate_train(self, server_round, replies):
            if server_round == 2 and not os.path.exists("stopped"):
                open("stopped", "w").close()
                raise KeyboardInterrupt
            return super().aggregate_train(server_round, replies)

    strategy = Stopping(""",
).replace("import numpy as np", "import os\nimport numpy as np")


def test_a_stopped_run_goes_on_only_with_the_same_settings_and_the_same_app(
    tmp_path: Path, home: Path, run: Run
) -> None:
    app = write_app(tmp_path / "app", strategies=STOPPING)
    folder = stopped_run(app, run)
    with pytest.raises(ConfigError, match="this run has seed = 0, not 1"):
        run(app, resume=folder, seed=1)
    (app / "strategies.py").write_text(STOPPING.replace("np.random.randn(3)", "np.random.randn(3) + 1"))
    with pytest.raises(RunFailed, match="is not the one before the stop: the app has changed"):
        run(app, resume=folder)
    (app / "strategies.py").write_text(STOPPING)
    assert len(rows(run(app, resume=folder), "train")) == 2


def test_a_damaged_journal_is_one_line(tmp_path: Path, home: Path, run: Run) -> None:
    folder = stopped_run(app := write_app(tmp_path / "app", strategies=STOPPING), run)
    (folder / "journal" / "2.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunFailed, match=r"2\.safetensors is damaged"):
        run(app, resume=folder)


def test_a_journal_that_grows_too_large_is_removed_and_the_run_goes_on(
    tmp_path: Path, home: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    done = run(write_app(tmp_path / "app"), journal_gb=1e-6)
    assert done.summary["messages"] == 16
    assert "journal is removed, because it would take more than --journal-gb 1e-06" in caplog.text
