"""log.txt of a run folder: the run's warnings, and the tracebacks of failed clients."""

import logging
from contextlib import suppress
from pathlib import Path


class _LogFile(logging.FileHandler):
    """A log that is silent when it cannot be written, because what cannot be written is told elsewhere, in one line."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # of opening it, when the folder of an earlier run in this process was removed
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def keep_log(folder: Path) -> None:
    """Write the run's warnings and the whole tracebacks of failed clients into ``log.txt``."""
    logger = logging.getLogger("fedsparse")
    for earlier in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:  # of a run in the same process
        logger.removeHandler(earlier)
        earlier.close()
    handler = _LogFile(folder / "log.txt", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
