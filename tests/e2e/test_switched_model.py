"""What the commands do with the model of a run whose layers were factored while it trained."""

from pathlib import Path

import pytest

from fedsparse.commands import main
from tests.e2e.as_user import tiny


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``model.pt`` of a run that switched after round 1."""
    folder = tmp_path_factory.mktemp("switched")
    settings = {
        **{"dataset": tiny(folder), "logdir": folder / "runs", "model": "mlp-small", "clients": 4, "rounds": 2},
        **{"clients-per-round": 2, "workers": 1, "dense-layers": "last", "lowrank-layers": "progressive"},
        **{"lowrank-switch-round": 1, "lowrank-rank": 4},
    }
    assert main([part for key, value in settings.items() for part in (f"--{key}", str(value))]) == 0
    (run,) = (folder / "runs").iterdir()
    return run / "model.pt"


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("prune", ["--checkpoint", "MODEL", "--method", "magnitude", "--sparsity", "0.5", "--dense-layers", "last"]),
        ("quantise", ["--checkpoint", "MODEL", "--bits", "8", "--inputs", "off", "--float-layers", ""]),
        ("pack", ["--checkpoint", "MODEL", "--tune", "0"]),
        ("distill", ["--teacher", "MODEL", "--model", "mlp-small", "--rounds", "1"]),
    ],
)
def test_every_command_reads_the_model(
    switched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, flags: list[str]
) -> None:
    flags = [str(switched) if flag == "MODEL" else flag for flag in flags]
    assert main([command, *flags, "--logdir", str(tmp_path)]) == 0
    assert "accuracy" in capsys.readouterr().out
