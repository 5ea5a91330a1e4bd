"""Replaces main.py in tests of the sweep: it writes the same files and exits with the same codes, but trains nothing.

The learning rate says how it ends: 1 fails, 2 goes on until it is interrupted, 3 not even then, 4 is killed.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml

config = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
Path(config["logdir"], "arguments.json").write_text(json.dumps(sys.argv))


def save(ended: str) -> None:
    rounds = [{"round": 1, "eval/accuracy": 0.5 + config["seed"] / 100, "comm/uplink_total": 10}]
    summary = {"ended": ended, "uplink-bytes": 10, "downlink-bytes": 20, "seconds": 1.0}
    Path(config["outfile"]).write_text(json.dumps({"config": config, "rounds": rounds, "summary": summary}))


if config["lr"] == 1:
    sys.exit("main.py: it failed\nsome advice")
if config["lr"] == 4:
    print("round 31/300  accuracy 79.50%", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if config["lr"] == 3:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if config["lr"] in (2, 3):
    Path(config["logdir"], "running").touch()
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        save("interrupted")
        sys.exit(130)
save("complete")
