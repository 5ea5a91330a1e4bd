"""Errors that end a command; the user sees each as one line."""

import re
import signal


class ConfigError(ValueError):
    """The user made a mistake in a flag, a file or a run config."""


class PluginError(ConfigError):
    """A file of the user's own has a mistake; ``traceback`` is the whole traceback, for the log."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class RunFailed(RuntimeError):
    """A run cannot go on: all clients failed, the federation does not fit the settings, or the runtime died."""


class OutputError(OSError):
    """A folder or file of results cannot be written."""


class Diverged(RunFailed):
    """A run whose weights, updates or loss are not finite any more."""


def cause(error: BaseException) -> str:
    """An exception as its type and the first line of its message."""
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}{': ' * bool(text)}{text}"


TRACEBACK = re.compile(r"Traceback \(most recent call last\):$|^ray::")
"""Begins a traceback of Python's, or of Ray's, in which every line of the frames is indented."""
EXCEPTION = re.compile(r"(?:[\w.]+\.)?([A-Za-z_]\w*)(?:(:) ?(.*))?$")
OURS = re.compile(r"(?:main\.py|fedsparse): (.+)")
FLOWERS_REPLY = re.compile(r"<class '(?:[\w.]+\.)?(\w+)[^']*'>:<'(.*)'>", re.DOTALL)
"""A client's exception as Flower replies it: its type, and its message."""
FLOWERS_EXIT = re.compile(r"Exit Code: \d+\s+(\S.*)")
WRAPPER = "ClientAppException"
"""What Flower raises in the place of a client's own exception."""
APP_MESSAGE = f"Exception {WRAPPER} occurred. Message: "
DECORATION = re.compile(r"\x1b\[\d*m|(?m:^\([^()\n]{0,99}pid=[^()\n]{0,99}\) ?|^ {2}[|+] )")
"""Colours, Ray's mark before a line of another process, and the margin of an exception group."""
LONGEST_LINE, LONGEST_TEXT = 300, 20_000
"""Characters that are kept of one line, and of a whole traceback, that somebody else wrote."""


def one_line(text: str) -> str:
    """A text that somebody else wrote, cut to 300 characters, with escapes in place of what a terminal would obey."""
    cut = text[:LONGEST_LINE] + "..." * (len(text) > LONGEST_LINE)
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in cut)


def harmless(text: str) -> str:
    """A text of several lines that somebody else wrote: its beginning and its end, each line as in ``one_line``."""
    half = LONGEST_TEXT // 2
    if len(text) > LONGEST_TEXT:
        text = f"{text[:half]}\n...\n{text[-half:]}"
    return "\n".join(map(one_line, text.splitlines()))


def reason(told: str, code: int = 0, otherwise: str = "") -> str:
    """What ended a process, or made a client fail, in one line of at most 300 characters and some escapes.

    An exception is its type and the first line of its message: the last lines of a message are often advice, and the
    last lines of a log are often about something else.

    Args:
        told: the log of the process, or what the client replied: a message, a traceback, or one in Flower's wrapping.
        code: the exit code of the process; negative for the number of the signal that killed it.
        otherwise: the answer where ``told`` names no exception; by default the exit code, or else the first line.
    """
    if code < 0:
        number = -code
        return f"killed by signal {number}" + (", perhaps out of memory" if number == 9 else _signal_name(number))
    return one_line(_reason(told, code, otherwise))


def _reason(told: str, code: int, otherwise: str) -> str:
    half = LONGEST_TEXT // 2  # a message begins with what matters, and a traceback ends with it
    told = told if len(told) <= LONGEST_TEXT else f"{told[:half]}\n{told[-half:]}"
    text, kind = DECORATION.sub("", told).strip(), ""
    if wrapped := FLOWERS_REPLY.fullmatch(text):
        kind, text = wrapped[1], wrapped[2].strip()
        if text.startswith(APP_MESSAGE):
            kind, text = "", text.removeprefix(APP_MESSAGE)
    if named := _named(text.splitlines()):
        return named
    if exits := FLOWERS_EXIT.findall(text):
        return str(exits[-1])
    first = text.splitlines()[0].strip() if text else ""
    return otherwise or (f"exit code {code}" if code else ": ".join(filter(None, (kind, first))) or "no reason given")


def _named(lines: list[str]) -> str:
    """The last exception that a traceback ends with, or the last line in which a command of ours says why it ended."""
    found, in_frames = "", False
    for number, line in enumerate(lines):
        if TRACEBACK.search(line):
            in_frames = True
        elif in_frames and line and not line[0].isspace():
            in_frames = False
            if (match := EXCEPTION.match(line)) and match[1] != WRAPPER:
                # A message that begins with an empty line goes on behind it.
                rest = [match[3] or "", *lines[number + 1 :]] if match[2] else []
                message = next((text.strip() for text in rest if text.strip()), "")
                found = f"{match[1]}{': ' * bool(message)}{message}"
        elif match := OURS.match(line):
            found = match[1].strip()
    return found


def _signal_name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return ""
