"""Errors that end a command; the user sees each as one line."""


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
