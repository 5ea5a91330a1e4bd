#!/usr/bin/env python3
"""python main.py --distribution dirichlet --beta 0.1    runs an experiment; --help shows all settings."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # imports take half a second, and Ctrl-C needs no traceback of them
    from fedsparse.commands import door

    sys.exit(door())
