"""Workers of parents that cannot be imported again: a script without a guard, standard input."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict

from fedsparse.engine import LocalGrid

with Path("times").open("a") as file:
    file.write("once\\n")


def ask(orders):
    messages = [Message(RecordDict({"order": ConfigRecord({"do": do})}), node, "train") for node, do in orders.items()]
    replies = grid.send_and_receive(messages)
    print(["lost" if reply.has_error() else reply.content["metrics"]["calls"] for reply in replies])


with LocalGrid(APP, clients=10, workers=2) as grid:
    ask({1: "work", 2: "work"})
    ask({1: "work", 2: "die", 3: "work"})
    ask({1: "work", 2: "work", 3: "work"})
assert sys.modules["__main__"].ask is ask
"""


def run(command: list[str], folder: Path, script: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, input=script, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("parent", "app"),
    [
        ("script", "tests.fedsparse.engine.obedient:app"),
        ("script from another folder", "own/app.py:app"),
        ("standard input", "tests.fedsparse.engine.obedient:app"),
    ],
)
def test_workers_answer_and_are_replaced_and_the_parents_code_runs_once(tmp_path: Path, parent: str, app: str) -> None:
    folder = tmp_path / "elsewhere"
    (folder / "own").mkdir(parents=True)
    (folder / "own/app.py").write_bytes(Path(__file__).with_name("obedient.py").read_bytes())
    script = SCRIPT.replace("APP", repr(app))
    (tmp_path / "script.py").write_text(script)
    (folder / "script.py").write_text(script)
    command = {"script": "script.py", "script from another folder": "../script.py", "standard input": "-"}[parent]
    ended = run([command], folder, script if command == "-" else "")
    assert ended.stdout.splitlines() == ["[1, 1]", "[2, 'lost', 1]", "[3, 2, 2]"], ended.stderr
    assert (folder / "times").read_text() == "once\n"
