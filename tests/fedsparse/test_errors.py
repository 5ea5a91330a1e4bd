"""Why something ended, in one line, whoever tells it."""

import signal
import subprocess
import sys
import traceback
from collections.abc import Callable

import pytest

from fedsparse.errors import cause, reason


def raised(act: Callable[[], object]) -> str:
    try:
        act()
    except BaseException:
        return traceback.format_exc()
    raise AssertionError


def several_lines() -> None:
    raise ValueError("CUDA error: it broke\n  an indented line\nFor debugging consider this advice")


def test_an_exception_is_its_type_and_first_line_not_its_last_advice() -> None:
    assert reason(raised(several_lines)) == "ValueError: CUDA error: it broke"


def test_of_chained_exceptions_the_last_is_the_reason() -> None:
    def chained() -> None:
        try:
            several_lines()
        except ValueError as error:
            raise KeyError("outer") from error

    assert reason(raised(chained)) == "KeyError: 'outer'"


def test_an_exception_without_a_message_is_its_type() -> None:
    def empty() -> None:
        raise MemoryError

    assert reason(raised(empty)) == "MemoryError"


def test_a_message_that_begins_with_an_empty_line_is_told() -> None:
    def late() -> None:
        raise RuntimeError("\n\nthe point\nadvice")

    assert reason(raised(late)) == "RuntimeError: the point"
    assert cause(RuntimeError("\n\nthe point\nadvice")) == "RuntimeError: the point"


def test_an_exception_group_is_its_own_line() -> None:
    def group() -> None:
        raise ExceptionGroup("two went wrong", [ValueError("a"), ValueError("b")])

    assert reason(raised(group)) == "ExceptionGroup: two went wrong (2 sub-exceptions)"


def test_a_message_without_a_traceback_is_its_first_line() -> None:
    assert reason("it did not answer\nmore") == "it did not answer"
    assert reason("  \n") == "no reason given"


@pytest.mark.parametrize(
    ("sent", "code", "told"),
    [
        (signal.SIGKILL, -9, "killed by signal 9, perhaps out of memory"),
        (signal.SIGSEGV, -11, "killed by signal 11 (SIGSEGV)"),
    ],
)
def test_a_killed_process_is_told_by_its_signal_whatever_it_said_last(
    sent: signal.Signals, code: int, told: str
) -> None:
    script = f"import os; print('round 31/300  accuracy 79.50%', flush=True); os.kill(os.getpid(), {int(sent)})"
    child = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.returncode == code
    assert reason(child.stdout, child.returncode) == told


def test_a_process_that_tells_no_error_is_told_by_its_exit_code() -> None:
    assert reason("round 31/300  accuracy 79.50%\n", 3) == "exit code 3"


def test_a_command_of_ours_is_told_by_the_first_line_of_what_it_said() -> None:
    log = "round 1/3\nmain.py: round 1: all 3 clients failed\nsome advice\n"
    assert reason(log, 1) == "round 1: all 3 clients failed"


def test_whatever_ended_a_log_last_is_the_reason() -> None:
    earlier = raised(several_lines)
    assert reason(f"{earlier}fedsparse: the disk is full\n", 1) == "the disk is full"
    assert reason(f"fedsparse: the disk is full\n{earlier}", 1) == "ValueError: CUDA error: it broke"


FROM_RAY = """\
<class 'ray.exceptions.RayTaskError(ClientAppException)'>:<'\x1b[36mray::ClientAppActor.run()\x1b[39m (pid=1, ip=1.2)
  File "client_app.py", line 161, in __call__
    return f()
           ^^^
fedsparse.compression.codec.NonFiniteError: update of layer '0.weight' has NaN or infinity
an advice

The above exception was the direct cause of the following exception:

\x1b[36mray::ClientAppActor.run()\x1b[39m (pid=1, ip=1.2)
  File "ray_actor.py", line 65, in run
    raise ClientAppException(str(ex)) from ex
flwr.clientapp.client_app.ClientAppException: 
Exception ClientAppException occurred. Message: update of layer '0.weight' has NaN or infinity
an advice'>"""


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (FROM_RAY, "NonFiniteError: update of layer '0.weight' has NaN or infinity"),
        ("<class 'ZeroDivisionError'>:<'division by zero'>", "ZeroDivisionError: division by zero"),
        ("<class 'my.app.OddError'>:<'the point\nadvice'>", "OddError: the point"),
        (
            "<class 'flwr.ClientAppException'>:<'\nException ClientAppException occurred. Message: the point\nadvice'>",
            "the point",
        ),
    ],
)
def test_what_flower_wraps_around_a_clients_exception_is_taken_off(reply: str, told: str) -> None:
    assert reason(reply) == told


def test_flowers_own_exit_is_told_where_there_is_no_exception() -> None:
    log = "INFO :  Starting\nERROR :     Exit Code: 100\n\nThe port is in use.\n\nFor more information: <https>\n"
    assert reason(log, 1) == "The port is in use."
