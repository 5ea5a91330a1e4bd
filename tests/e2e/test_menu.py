"""`main.py menu`, and `--quick-test`."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from fedsparse.catalogue import COMPRESSORS, TOPOLOGIES
from fedsparse.commands import main
from fedsparse.commands.all_commands import COMMANDS
from fedsparse.commands.command_line import QUICK_TEST, parse
from fedsparse.commands.menu import command, names
from fedsparse.config import KEYS
from fedsparse.config.presets import PRESETS
from tests.e2e.as_user import ROOT

DOWN, ENTER, SPACE, CTRL_D, KILL_LINE = "\x1b[B", "\r", " ", "\x04", "\x15"


@contextmanager
def keys(*pressed: str) -> Iterator[None]:
    """A terminal in which somebody presses these keys."""
    with create_pipe_input() as terminal, create_app_session(input=terminal, output=DummyOutput()):
        terminal.send_text("".join(pressed))
        yield


def test_the_first_choice_is_the_quick_test(tmp_path: Path) -> None:
    with keys(ENTER):
        assert command(str(tmp_path)) == ["--quick-test"]


def test_a_job_is_put_together_from_choices_and_typed_values(tmp_path: Path) -> None:
    data, model, compressor, topology = ENTER, ENTER, ENTER, ENTER
    dirichlet, beta, usual = DOWN + ENTER, KILL_LINE + "0.3" + ENTER, ENTER
    rounds = KILL_LINE + "7" + ENTER
    with keys(DOWN, ENTER, data, dirichlet, model, compressor, topology, beta, usual, rounds, usual):
        assert command(str(tmp_path)) == ["--distribution", "dirichlet", "--beta", "0.3", "--rounds", "7"]


def test_a_wrong_value_is_asked_for_again(tmp_path: Path) -> None:
    wrong, right = KILL_LINE + "1.5" + ENTER, KILL_LINE + "0.5" + ENTER
    with keys(DOWN, ENTER, *[ENTER] * 5, wrong, right, ENTER, ENTER):
        assert command(str(tmp_path)) == ["--density", "0.5"]


def test_all_compressors_are_compared_on_a_chosen_job(tmp_path: Path) -> None:
    mnist = DOWN + ENTER
    with keys(DOWN, DOWN, ENTER, mnist, *[ENTER] * 5):
        assert command(str(tmp_path)) == ["compare-all", "--dataset", "mnist"]


@pytest.mark.parametrize(
    ("way", "words"),
    [(0, ["report", "B", "A"]), (1, ["report", "B", "A", "--summary"]), (2, ["tensorboard", "--logdir", ""])],
)
def test_results_are_those_of_the_newest_runs_first(tmp_path: Path, way: int, words: list[str]) -> None:
    for age, name in enumerate("BA"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    with keys(DOWN * 3, ENTER, SPACE, DOWN, SPACE, ENTER, DOWN * way, ENTER):
        shown = command(str(tmp_path))
    assert shown == [str(tmp_path / word) if word in ("A", "B", "") else word for word in words]


def test_choices_are_those_of_the_catalogue_that_go_together() -> None:
    assert names("compressor", {}) == [*COMPRESSORS, *PRESETS]
    assert names("topology", {}) == ["auto", *TOPOLOGIES]
    assert "cnn" in names("model", {"dataset": "mnist"})
    assert "cnn" not in names("model", {"dataset": "ptb"})


def in_terminal(*arguments: str, press: Callable[[str], str], seconds: float = 90) -> tuple[int, str]:
    """The exit code and output of `main.py` in a terminal of its own.

    Args:
        press: called with the output so far; returns what somebody presses then.
    """
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *arguments], stdin=its, stdout=its, stderr=its, start_new_session=True
    )
    os.close(its)
    shown, until = "", time.monotonic() + seconds
    while time.monotonic() < until:
        if not select.select([ours], [], [], 0.2)[0]:
            continue
        try:
            shown += os.read(ours, 4096).decode(errors="replace")
        except OSError:  # the terminal is closed
            break
        if "\x1b[6n" in shown:  # it asks where the cursor is
            shown = shown.replace("\x1b[6n", "")
            os.write(ours, b"\x1b[1;1R")
        os.write(ours, press(shown).encode())
    code = process.wait(timeout=20)
    os.close(ours)
    return code, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def once(words: str, key: str) -> Callable[[str], str]:
    """Press the key when the words are shown, and nothing else."""
    left = [key]
    return lambda shown: left.pop() if left and words in shown else ""


def test_ctrl_c_in_a_question_exits_130_without_a_traceback(tmp_path: Path) -> None:
    code, shown = in_terminal("menu", "--logdir", str(tmp_path), press=once("show results", "\x03"))
    assert code == 130, shown
    assert "interrupted" in shown
    assert "Traceback" not in shown


def test_ctrl_d_leaves_every_kind_of_question(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").touch()
    typed = (DOWN, ENTER, *[ENTER] * 5, KILL_LINE)
    for before in ((), typed, (DOWN * 3, ENTER)):
        with keys(*before, CTRL_D), pytest.raises(KeyboardInterrupt):
            command(str(tmp_path))


def test_the_command_is_shown_and_run_and_its_exit_code_is_the_menus(tmp_path: Path) -> None:
    run = tmp_path / "broken"
    run.mkdir()
    (run / "config.yaml").write_text("name: broken\n")
    keys = DOWN * 3 + ENTER + SPACE + ENTER + ENTER
    code, shown = in_terminal("menu", "--logdir", str(tmp_path), press=once("show results", keys))
    assert f"python main.py report {run}" in shown
    assert "broken holds no result.json" in shown
    assert code == 2


def test_without_a_terminal_the_menu_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["menu"]) == 2
    assert capsys.readouterr().err == "fedsparse: the menu asks its questions in a terminal; without one, see --help\n"


def test_the_quick_test_is_the_file_of_that_name_and_other_settings_are_stronger(tmp_path: Path) -> None:
    written = yaml.safe_load((ROOT / "configs" / "quick-test.yaml").read_text())
    assert {key: str(value) for key, value in written.items()} == QUICK_TEST
    (tmp_path / "more.yaml").write_text("clients: 30\n")
    asked = parse(["--quick-test", "--rounds", "2", "--config", str(tmp_path / "more.yaml")], COMMANDS, "main.py")
    assert asked.settings == {**QUICK_TEST, "rounds": "2", "clients": "30"}
    assert asked.settings.typed == {"rounds"}


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.takes is not None])
def test_the_help_of_a_command_lists_the_settings_that_it_takes_and_no_other(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    listed = set(re.findall(r"^  --([\w-]+)", capsys.readouterr().out, re.M)) & {*KEYS}
    own = {*COMMANDS[name].own, *COMMANDS[name].switches}
    assert listed - own == {*(COMMANDS[name].takes or ())} - own
    refused = next(key for key in ("sparsity", "beta") if key not in own)
    assert main([name, *["x"] * bool(COMMANDS[name].files), f"--{refused}", "0.5"]) == 2
    assert refused in capsys.readouterr().err
