"""The peak memory of one client of a language model, in models of 4 bytes a weight: one table.

    python -m benchmarks.memory                                    # gpt2-small on the CPU, some minutes
    python -m benchmarks.memory gpt2-medium --amp bf16 --recompute # one row, with these settings

Each row is a process of its own, which answers two train messages as a worker does. Its peak counts all that the client
needs beside the program and its data: the message with the weights, the model, its gradient, the optimizer's moments,
what the loss needs, the residual, and the payload. The residual is in a file between rounds.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, Metadata, RecordDict

from benchmarks.common import machine, peak_bytes, reset_peak
from fedsparse.clients.client_app import app
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import Config
from fedsparse.device import release_freed
from fedsparse.engine.records import payload_array
from fedsparse.experiment import Experiment
from fedsparse.partitions.text import Text, Windows
from fedsparse.partitions.tokenizer import Char
from fedsparse.sparsity import Topology

TOKENS = 50_257
SETTINGS = {
    "dataset": "benchmarks.memory:random_text",
    "distribution": "iid",
    "clients": 2,
    "clients-per-round": 1,
    "rounds": 2,
    "local-steps": 2,
    "batch-size": 1,
    "seq-length": 128,
    "compressor": "topk",
    "density": 0.01,
    "device": "cpu",
}
ROWS = [
    [],
    ["--optimizer", "adamw", "--lr", "0.0003"],
    ["--compressor", "hggtopk"],
    ["--compressor", "none"],
    ["--amp", "bf16"],
]


def random_text(data_dir: Path, seq_length: int) -> Text:
    """Windows of random tokens, of a vocabulary as large as GPT-2's."""
    tokens = torch.randint(0, TOKENS, (64 * seq_length + 1,), generator=torch.Generator().manual_seed(0))
    windows = Windows(tokens.int(), torch.arange(0, 64 * seq_length, seq_length))
    return Text(TOKENS, windows, windows, seq_length, Char([]), bytes_per_token=4.0)


def message_of(config: Config) -> tuple[Message, int]:
    """A train message of round 1, and how many weights the model has."""
    experiment = Experiment(config)
    layout, weights = experiment.layout, experiment.model.vector
    payload, _ = UpdateCodec(layout, "none").encode(weights, ClientState(), round=1, seed=0)
    full = Topology.full(experiment.layers, layout.parameters)
    task = {"topology": f"{full.hash:016x}", "topology-version": 0, "accepted-round": 0, "state-folder": ""}
    arrays = ArrayRecord({"weights": payload_array(payload, layout)})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord(config.flat()), "task": ConfigRecord(task)})
    metadata = Metadata(0, "1", 0, 1, "", "", time.time(), 1e9, "train")
    return Message(metadata=metadata, content=content), layout.size


def measure(settings: dict[str, Any]) -> None:
    """Answer two messages, and print peaks and seconds as JSON."""
    config = Config.from_mapping(SETTINGS | settings)
    torch.set_num_threads(1)
    experiment = Experiment(config)
    _ = experiment.partition
    gc.collect()
    before = reset_peak()
    message, weights = message_of(config)
    release_freed(weights)
    context = Context(0, 1, {"partition-id": 0}, RecordDict(), {})
    peaks, seconds, payload = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        for round in (1, 2):
            message.content["task"].update({"round": round, "accepted-round": round - 1, "state-folder": folder})
            gc.collect()
            reset_peak()
            began = time.perf_counter()
            reply = app(message, context)
            seconds.append(time.perf_counter() - began)
            peaks.append((peak_bytes() - before) / (4 * weights))
            payload = len(reply.content["arrays"]["update"].data)
    print(json.dumps({"weights": weights, "peaks": peaks, "seconds": seconds, "payload": payload}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="gpt2-small")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments, flags = parser.parse_known_args()
    if arguments.row:
        return measure(json.loads(arguments.row))
    print(f"{machine()}\n")
    print(
        "| settings | peak of round 1 | of round 2 | GiB | payload | seconds |\n|---|---|---|---|---|---|", flush=True
    )
    for row in [flags] if flags or arguments.model != "gpt2-small" else ROWS:
        settings = {"model": arguments.model} | as_settings(row)
        command = [sys.executable, "-m", "benchmarks.memory", "--row", json.dumps(settings)]
        done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        first, second = done["peaks"]
        gib = max(done["peaks"]) * 4 * done["weights"] / 2**30
        name = f"{arguments.model} ({done['weights']:,} weights) {' '.join(row)}"
        told = f"{gib:.2f} | {done['payload']:,} B | {max(done['seconds']):.1f}"
        print(f"| {name} | {first:.2f} models | {second:.2f} models | {told} |", flush=True)
    return None


def as_settings(flags: list[str]) -> dict[str, Any]:
    """``--amp bf16 --recompute`` as settings."""
    settings: dict[str, Any] = {}
    for flag in flags:
        if flag.startswith("--"):
            name = flag.removeprefix("--")
            settings[name] = True
        else:
            settings[name] = json.loads(flag) if flag.replace(".", "").isdigit() else flag
    return settings


if __name__ == "__main__":
    main()
