"""What the trackers show of each layer: histograms of updates and residuals, and pictures of masks."""

from pathlib import Path

import numpy as np
import torch
from flwr.app import Context, RecordDict
from torch import Tensor

from fedsparse.compression.arrays import as_float32, to_numpy
from fedsparse.engine import LocalGrid
from fedsparse.engine.client_store import load_state
from fedsparse.engine.state_files import StateFiles
from fedsparse.sparsity import Topology
from fedsparse.telemetry.histograms import Histogram

PICTURES = 3
"""Layers whose masks are shown."""
LARGEST = 128, 512
"""The most rows and columns of a mask that are shown."""


def layer_histograms(name: str, vector: Tensor, topology: Topology) -> dict[str, Histogram]:
    """A histogram of each layer's existing weights.

    Args:
        name: begins the tags.
        vector: on the CPU, shape ``(layout.parameters,)`` or ``(layout.size,)``.
    """
    found = {}
    for layer in topology.layers:
        values, mask = vector[layer.slice], topology.mask[layer.slice]
        if histogram := Histogram.of(values if mask.all() else values[mask]):
            found[f"{name}/{layer.name}"] = histogram
    return found


def residual_of(client: int, grid: LocalGrid | None, folder: str, parameters: int) -> Tensor | None:
    """What a client did not send yet, float32 of shape ``(parameters,)``; None without one in reach that fits.

    Args:
        grid: that holds the clients' Contexts; None where the server cannot see them.
        folder: of the clients' state files; empty when clients keep their state in their Contexts.
    """
    if not (grid or folder):
        return None
    files = StateFiles(Path(folder) / str(client)) if folder else None
    content = grid.state_of(client) if grid else RecordDict()
    state = load_state(Context(0, client, {}, content, {}), files)
    if state.residual is None:
        return None
    residual = torch.from_numpy(np.array(as_float32(to_numpy(state.residual))))
    if not state.topology:
        return residual if len(residual) == parameters else None  # None: of the network before it was factored
    held = np.unpackbits(np.frombuffer(state.topology, np.uint8), count=parameters).astype(bool)
    return torch.zeros(parameters).masked_scatter_(torch.from_numpy(held), residual)


def mask_images(topology: Topology) -> dict[str, Tensor]:
    """The masks of the first layers that can be pruned: an output a row, white where a weight exists; the beginning of
    large ones. uint8, at most ``LARGEST``."""
    rows, columns = LARGEST
    prunable = [layer for layer in topology.layers if not layer.dense][:PICTURES]
    return {
        f"mask/{layer.name}": topology.mask[layer.slice].view(layer.shape[0], -1)[:rows, :columns].to(torch.uint8) * 255
        for layer in prunable
        if not topology.mask[layer.slice].all()
    }
