"""A working directory for somebody's Flower app, and what runs the app there."""

from pathlib import Path
from typing import Any

import pytest

from fedsparse.flower.app_runner import AppRun, run_app
from tests.fedsparse.flower.somebodys_app import Run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, beside the app's folder."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def run(home: Path) -> Run:
    """Runs an app with four nodes."""

    def run(app: Path, run_config: Any = "", **options: Any) -> AppRun:
        return run_app(app, run_config, **{"num_supernodes": 4, **options})

    return run
