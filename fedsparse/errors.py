"""What ends a command, told to the user in one line."""


class ConfigError(ValueError):
    """A mistake of the user's in a flag, a file or a run config."""


class PluginError(ConfigError):
    """A mistake in a file of the user's own; ``traceback`` is the whole of it, for the log."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class RunFailed(RuntimeError):
    """A run that cannot go on: all clients failed, the federation does not fit the settings, or the runtime died."""


class OutputError(OSError):
    """A folder or file of results cannot be written."""
