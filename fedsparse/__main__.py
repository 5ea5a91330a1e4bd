"""python -m fedsparse is the same as main.py."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # imports take half a second, and Ctrl-C needs no traceback of them
    from fedsparse.commands import door

    sys.exit(door())
