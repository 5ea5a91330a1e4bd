"""What goes wrong in the middle of a command: one line, exit code 1, and the whole of it in a file."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsparse.commands import main
from tests.e2e.test_main import ROOT, shell, tiny


@pytest.mark.parametrize("clients", ["5", "100", "100000"])
def test_a_command_without_clients_asks_for_no_samples_of_theirs(tmp_path: Path, clients: str) -> None:
    flags = ["--dataset", tiny(tmp_path), "--clients", clients, "--logdir", str(tmp_path / "runs")]
    assert main(["train-central", *flags, "--rounds", "1", "--distribution", "dirichlet", "--beta", "0.001"]) == 0
    (model,) = tmp_path.rglob("model.pt")
    assert main(["prune", *flags, "--checkpoint", str(model), "--sparsity", "0.5"]) == 0
    assert main(["bench-compressors", *flags, "--size", "5000"]) == 0


def test_compressors_are_compared_on_as_many_clients_as_there_are(tmp_path: Path) -> None:
    flags = ["--dataset", tiny(tmp_path), "--clients", "2", "--logdir", str(tmp_path / "runs")]
    assert main(["bench-compressors", *flags, "--model", "mlp-small"]) == 0
