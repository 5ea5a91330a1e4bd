"""The settings that a command takes, where it does not take all of them."""

REPORT = MENU = frozenset({"logdir"})
RERUN = frozenset({"data-dir", "device", "workers"})
"""Of a run that is run again; another machine may need others than the run had."""
APP = frozenset({"threads", "seed", "client-timeout", "logdir", "name", "resume"})
"""Of somebody's Flower app."""
TUNE = APP - {"resume"}
