#!/usr/bin/env python3
"""python main.py --distribution dirichlet --beta 0.1    runs an experiment; --help shows all settings."""

import sys

from fedsparse.commands import door

if __name__ == "__main__":
    sys.exit(door())
