"""The command line: `python main.py`, `fedsparse` and `python -m fedsparse` are all :func:`door`.

A command is a file here and an entry of ``COMMANDS`` in all_commands.py. Its function is called with the settings, the
files named after the command, and the command's own flags as strings. torch is imported only when the command line has
no mistake.
"""

import codecs
import gc
import io
import logging
import os
import re
import signal
import sys
import threading
import traceback
from pathlib import Path

from fedsparse.commands.all_commands import COMMANDS
from fedsparse.commands.command_line import parse
from fedsparse.commands.last_words import LastWords
from fedsparse.commands.resume import resumed
from fedsparse.config.effects import without_mistakes
from fedsparse.engine import fork_server
from fedsparse.errors import ConfigError, OutputError, RunFailed
from fedsparse.plugins import last_line, load

ENDS_WITH_PARENT = "FEDSPARSE_ENDS_WITH_STDIN"
"""A variable in the environment of a sweep's cells."""


def main(arguments: list[str], last_words: LastWords | None = None) -> int:
    """The exit code: 0; 1 when a run failed; 2 for a mistake in what the user gave; 130 after Ctrl-C.

    Args:
        arguments: what was typed behind the program's name.
        last_words: what says what killed this process; None in a process with other uses.
    """
    program, logdir = program_name(), "runs"
    try:
        asked = parse(arguments, COMMANDS, program)
        logdir = str(asked.settings.get("logdir", logdir))
        if last_words:
            last_words.keep_in(logdir)
        command = COMMANDS[asked.command]
        if asked.settings.get("resume") and not command.resumes:
            if asked.command != "run":
                raise ConfigError(f"--resume belongs to the command run, not to {asked.command}")
            asked = asked._replace(settings=resumed(asked.settings))
        asked.settings.update(command.given)
        if command.has_all:
            without_mistakes(asked.settings)
        act = load(command.act)
        logging.basicConfig(format="%(message)s", handlers=[warnings_handler()])
        listen_to_ctrl_c()
        return act(asked.settings, *asked.files, **asked.own) or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # as in `main.py partition | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ConfigError, OutputError) as error:
        print(f"{program}: {error}{keep_traceback(error, logdir)}", file=sys.stderr)
        return 2
    except (RunFailed, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # training, data and memory fail in many ways, and torch has a class for few of them
        print(f"{program}: {in_one_line(error)}{keep_traceback(error, logdir)}", file=sys.stderr)
        return 1


def door() -> int:
    """What `fedsparse` and `python main.py` run: :func:`main` on the command line, with the process's signals set."""
    open_what_is_closed()  # first, because a pipe would take the free file descriptor
    last_words = LastWords(program_name())

    def leave(*_: object) -> None:  # imports take seconds, and Ctrl-C needs no traceback of them
        last_words.farewell()
        fork_server.end()
        os._exit(130)

    signal.signal(signal.SIGINT, leave)
    # Before torch loads: with more than one thread, OpenMP's spinning makes processes side by side many times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    threading.excepthook = thread_failed
    show_plainly(sys.stdout)
    if os.environ.pop(ENDS_WITH_PARENT, ""):
        threading.Thread(target=_stop_with_the_parent, daemon=True).start()
    with last_words:
        code = main(sys.argv[1:], last_words)
        fork_server.end()
    gc.freeze()  # because Python would search all that torch made for garbage once more, which takes a second
    return code


def _stop_with_the_parent() -> None:
    """Interrupt this process at the end of standard input: a pipe that ends when the sweep of this cell is killed."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def open_what_is_closed() -> None:
    """Give a process without standard output or error, such as a daemon's, the null device in their place."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


ORNAMENTS = {"\N{BOX DRAWINGS LIGHT HORIZONTAL}": "-", "\N{PLUS-MINUS SIGN}": "+-", "\N{HORIZONTAL ELLIPSIS}": "..."}


def show_plainly(stream: object) -> None:
    """Let a stream write what its encoding lacks in other characters, so that ornaments end no command."""

    def plain(error: UnicodeError) -> tuple[str | bytes, int]:
        if isinstance(error, UnicodeEncodeError) and (character := error.object[error.start]) in ORNAMENTS:
            return ORNAMENTS[character], error.start + 1
        return codecs.backslashreplace_errors(error)

    codecs.register_error("plain", plain)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="plain")


def warnings_handler() -> logging.Handler:
    """A handler that shows the run's warnings in the terminal, above the progress bar."""
    from rich.logging import RichHandler  # imported here, so that --help does not wait for it

    return RichHandler(show_path=False, show_time=False, level="WARNING")


def listen_to_ctrl_c() -> None:
    """Let Ctrl-C and whatever else stops a run raise KeyboardInterrupt, so that results are saved.

    These are SIGTERM, SIGHUP of a closed terminal, SIGQUIT of Ctrl-\\, and SIGUSR1, which SLURM sends before the end.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ending in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        if signal.getsignal(ending) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(ending, signal.default_int_handler)


def thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Print what ended a thread, except a full disk in TensorBoard's writer, because the main thread reports that."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def program_name() -> str:
    """The name by which the user called this program."""
    return "main.py" if Path(sys.argv[0]).name == "main.py" else "fedsparse"


def in_one_line(error: Exception) -> str:
    """What an exception that is none of ours means."""
    line = last_line(error)
    if isinstance(error, MemoryError) or re.search(r"out of memory|can't allocate memory", line):
        return f"out of memory: {line}; a smaller --batch-size or --model needs less"
    return line


def keep_traceback(error: Exception, logdir: str) -> str:
    """Write the traceback, but of a mistake in the settings, into the log folder; says where, in brackets."""
    expected = isinstance(error, ConfigError | OutputError)
    text = getattr(error, "traceback", "") if expected else "".join(traceback.format_exception(error))
    if not text:
        return ""
    file = Path(logdir).expanduser() / "traceback.txt"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError:
        return ""
    return f" (all of it: {file})"
