"""What ends a run early."""


class RunFailed(RuntimeError):
    """A run that cannot go on, told in one line: all clients failed, a federation that does not fit, a dead runtime."""
