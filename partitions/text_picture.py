"""Who holds which text: tokens of each client, and how far its unigram distribution is from the whole."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from fedsparse.partitions.picture import BLUES, TABLE_CLIENTS, title_of
from fedsparse.partitions.split import Ints, Partition

if TYPE_CHECKING:
    from fedsparse.partitions.text import Text

MOST_CLIENTS = 2000
"""Clients that are drawn; of more, evenly spaced ones."""


def distances(data: "Text", partition: Partition, clients: Ints) -> np.ndarray:
    """(clients,) float64: the total variation distance of each client's unigram distribution from that of all clients.

    It is half the sum of |p - q| over the vocabulary: 0 for equal distributions, 1 for distributions without a common
    token. A client with little text is further from the whole by chance alone.
    """
    whole = data.unigrams(np.arange(data.train_size))
    return np.array([np.abs(data.unigrams(partition[client]) - whole).sum() / 2 for client in clients.tolist()])


def plot_tokens(data: "Text", partition: Partition) -> Figure:
    """`draw_tokens` in a new figure, without pyplot."""
    figure = Figure(figsize=(9, 4.5), dpi=120, layout="constrained")
    draw_tokens(data, partition, figure)
    return figure


def draw_tokens(data: "Text", partition: Partition, figure: Figure | SubFigure) -> None:
    """Two rows of bars, the clients sorted by their tokens: the tokens, and the distances."""
    clients = np.arange(len(partition))
    name = partition.name
    if len(clients) > MOST_CLIENTS:
        clients = np.linspace(0, len(clients) - 1, MOST_CLIENTS).astype(int)
        name = f"of {len(partition):,}" + (f", {name}" if name else "")
    clients = clients[np.argsort(-partition.sizes[clients], kind="stable")]
    upper, lower = figure.subplots(2, 1, sharex=True)
    edges = np.arange(len(clients) + 1) - 0.5
    upper.stairs(partition.sizes[clients] * data.seq_length, edges, fill=True, color=BLUES(0.8))
    upper.set(title=title_of(name, len(clients)), ylabel="tokens", ylim=(0, None))
    lower.stairs(distances(data, partition, clients), edges, fill=True, color=BLUES(0.5))
    lower.set(xlabel="clients, sorted by their tokens (not by id)", ylabel="distance of unigrams\nfrom the whole")
    lower.set_ylim(0, None)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)


def tokens_text(data: "Text", partition: Partition, width: int) -> str:
    """A table of the first 20 clients for the terminal, and one line about all of them."""
    clients = np.arange(len(partition))
    if len(clients) > MOST_CLIENTS:
        clients = np.linspace(0, len(clients) - 1, MOST_CLIENTS).astype(int)
    tokens = partition.sizes * data.seq_length
    shown = np.arange(min(TABLE_CLIENTS, len(partition)))
    rows = [f"{'client':>6} {'tokens':>10} {'distance':>9}"]
    rows += [
        f"{c:>6} {tokens[c]:>10,} {d:>9.3f}" for c, d in zip(shown, distances(data, partition, shown), strict=True)
    ]
    if len(partition) > TABLE_CLIENTS:
        rows.append(f"... and {len(partition) - TABLE_CLIENTS} more clients")
    far = distances(data, partition, clients)
    rows += [
        f"tokens per client: min {tokens.min():,}, median {np.median(tokens):,g}, max {tokens.max():,}",
        f"distance of unigrams from the whole: min {far.min():.3f}, median {np.median(far):.3f}, max {far.max():.3f}",
    ]
    if partition.moved:
        rows.append(f"moved to hold the floor: {partition.moved} of {partition.sizes.sum()} windows")
    return "\n".join([title_of(partition.name, len(partition)), *rows])
