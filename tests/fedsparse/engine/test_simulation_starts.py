"""The end of a run whose flwr-simulation dies before it begins to work."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedsparse.engine.simulation_starts import MOST, NAME, SimulationStarts


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("import a_module_that_is_missing", "ModuleNotFoundError: No module named 'a_module_that_is_missing'"),
        ("import sys; sys.exit('libfoo.so: cannot open')", "libfoo.so: cannot open"),
        ("exit(1)", "it says nothing; a try may take 30 s"),
    ],
)
def test_a_run_whose_simulation_dies_at_each_start_is_given_up_with_the_reason(
    tmp_path: Path, says: str, why: str
) -> None:
    program = tmp_path / "a program"
    program.write_text(f"#!{sys.executable}\n{says}\n")
    program.chmod(0o700)
    starts = SimulationStarts(tmp_path)
    starts.note(program)
    with subprocess.Popen(["sleep", "600"], text=True) as waiting:
        starts.end(waiting)
        for count in range(MOST):
            assert not starts.are_too_many, count
            assert subprocess.run([starts.folder / NAME]).returncode == 1
        assert waiting.wait(10) < 0
    assert starts.reason() == f"flwr-simulation did not begin to work in 3 tries: {why}"


def test_a_simulation_that_begins_gets_its_arguments_and_the_run_goes_on(tmp_path: Path) -> None:
    starts = SimulationStarts(tmp_path)
    starts.note(Path("/bin/echo"))
    with subprocess.Popen(["sleep", "3"], text=True) as waiting:
        starts.end(waiting)
        told = subprocess.run([starts.folder / NAME, "--token", "a b"], capture_output=True, text=True)
        assert told.stdout == "--token a b\n"
        assert waiting.wait() == 0
