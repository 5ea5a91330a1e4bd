"""The command line: `python main.py`, `fedsparse` and `python -m fedsparse` are all :func:`door`.

A command is a file here and a line in ``COMMANDS``. Its function is called with the settings, the files named after the
command, and the command's own flags as strings. torch is imported only when the command line has no mistake.
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

from fedsparse.commands import settings_of
from fedsparse.commands.command_line import Command, parse
from fedsparse.commands.last_words import LastWords
from fedsparse.commands.resume import resumed
from fedsparse.config.effects import without_mistakes
from fedsparse.engine import fork_server
from fedsparse.errors import ConfigError, OutputError, RunFailed
from fedsparse.plugins import last_line, load
from fedsparse.report.options import FLAGS, SWITCHES

ENDS_WITH_PARENT = "FEDSPARSE_ENDS_WITH_STDIN"
"""A variable in the environment of a sweep's cells."""

NO_COHORT = {"clients-per-round": 1}
"""What a command gives that samples no clients, so that any number of clients will do."""

AN_APPS = {
    "run-config": "'key=1 other=\"text\"' or a TOML file, in place of what the app's pyproject.toml has",
    "num-supernodes": "nodes of the federation [what the app or Flower's configuration says, or else 10]",
    "workers": "processes that call clients; with 1, clients run in this process [1]",
}
"""Flags of every command that runs somebody's Flower app."""

JOBS = "runs at once; auto is one a core, or one on a GPU [auto]"

COMMANDS = {
    "run": Command("fedsparse.commands.run:run", "train a federation; the command that needs no name"),
    "menu": Command(
        "fedsparse.commands.menu:menu",
        "ask what to do, then do it",
        takes=settings_of.MENU,
        has_all=False,
    ),
    "partition": Command(
        "fedsparse.commands.partition:partition",
        "show which client holds which classes",
        given=NO_COHORT,
    ),
    "bench-compressors": Command(
        "fedsparse.commands.bench_compressors:bench_compressors",
        "compare all compressors on updates of a short run",
        own={
            "size": "so many random numbers instead of updates of a run",
            "budgets": "how many times less than dense a payload should take [10,30,100,300]",
        },
        has_all=False,
        given=NO_COHORT,
    ),
    "sweep": Command(
        "fedsparse.commands.sweep:sweep",
        "run a grid of settings and seeds; a table and a plot at the end",
        files="FILE",
        own={"jobs": JOBS},
        has_all=False,
    ),
    "compare-all": Command(
        "fedsparse.commands.compare_all:compare_all",
        "run every compressor on one job, at equal density and at equal bytes; a page at the end",
        own={
            "seeds": "how many seeds each [1]",
            "jobs": JOBS,
        },
        has_all=False,
    ),
    "report": Command(
        "fedsparse.commands.report:report",
        "compare runs: tables, curves and a page; of finished, killed and running ones",
        files="RUN_FOLDER...",
        own=FLAGS,
        switches=SWITCHES,
        takes=settings_of.REPORT,
        has_all=False,
    ),
    "verify": Command(
        "fedsparse.commands.verify:verify",
        "run the first rounds of a run again, and compare the bits",
        files="RUN_FOLDER",
        own={"rounds": "how many of its rounds [3]"},
        takes=settings_of.RERUN,
        has_all=False,
    ),
    "run-app": Command(
        "fedsparse.commands.run_app:act",
        "run somebody's Flower app, on one machine, without Ray, repeatable",
        files="PATH",
        own={
            **AN_APPS,
            "journal-gb": "disk that the replies may take, which --resume needs; 0 for none [10]",
        },
        takes=settings_of.APP,
        has_all=False,
        resumes=True,
    ),
    "tune": Command(
        "fedsparse.commands.tune:act",
        "find the two lines that make a Flower app's uplink meet a budget",
        files="PATH",
        own={
            "times": "how many times less uplink than whole updates take, such as 100",
            "uplink": "of the training replies of all --rounds, such as 1MB",
            "rounds": "of the run that you have in mind",
            "short": "rounds of the short runs; the last ones have twice as many [5]",
            **AN_APPS,
        },
        takes=settings_of.TUNE,
        has_all=False,
    ),
    "train-central": Command(
        "fedsparse.commands.train_central:train_central",
        "train the same model on the pooled data; a round is --epochs passes",
        given=NO_COHORT,
    ),
    "distill": Command(
        "fedsparse.commands.distill:distill",
        "train a small network with a trained one as its teacher; otherwise as train-central",
        own={
            "teacher": "model.pt of a run; its settings are in the config.yaml beside it",
            "temperature": "scores are divided by it [4]",
            "mix": "weight of the teacher in the loss, 0 to 1; the rest is of the labels [0.9]",
        },
        given=NO_COHORT,
        has_all=False,
    ),
    "prune": Command(
        "fedsparse.commands.prune:prune",
        "prune a trained model in one shot, with accuracy or perplexity before and after",
        own={
            "checkpoint": "model.pt of a run; the settings are in the config.yaml beside it",
            "method": "sparsegpt or magnitude [sparsegpt]",
            "sparsity": "of the pruned layers (of the whole network when training)",
            "nm": "N:M, such as 2:4, instead of a sparsity",
            "samples": "training samples to calibrate on [512]",
        },
        given=NO_COHORT,
        has_all=False,
    ),
    "quantise": Command(
        "fedsparse.commands.quantise:quantise",
        "quantise a trained model, with accuracy or perplexity before and after, and its size",
        own={
            "checkpoint": "model.pt of a run; the settings are in the config.yaml beside it",
            "bits": "of the weights: 8, 4, 2 or 1 [8]",
            "inputs": "bits of what the layers get: off, 8, 4 or 2 [8]",
            "samples": "training samples that the ranges of the inputs are observed on [512]",
        },
        given=NO_COHORT,
        has_all=False,
    ),
    "pack": Command(
        "fedsparse.commands.pack:pack",
        "write a trained model into one small file: pruned, its weights clustered and coded",
        own={
            "checkpoint": "model.pt of a run; the settings are in the config.yaml beside it",
            "sparsity": "prune the layers that are not in dense-layers to it [the zeros that are there]",
            "clusters": "values of each layer, up to 256; auto: 256 of a convolution, 32 of a linear layer [auto]",
            "tune": "passes over the training data after pruning and after clustering [2]",
        },
        given=NO_COHORT,
        has_all=False,
    ),
    "unpack": Command(
        "fedsparse.commands.pack:unpack",
        "write the state dict of a file that pack wrote",
        files="FILE",
        own={"out": "where to write it [model.pt beside the file]"},
        has_all=False,
        takes=(),
    ),
}


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
