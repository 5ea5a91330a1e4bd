"""python -m fedsparse is the same as main.py."""

import sys

from fedsparse.commands import door

if __name__ == "__main__":
    sys.exit(door())
