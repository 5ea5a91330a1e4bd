"""The class histogram of a partition (how many samples of each class each client holds) as array, plot and table."""

import io
import re
import textwrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import ArrayLike
from rich import box
from rich.console import Console
from rich.table import Table

from fedsparse.partitions.split import Ints, Partition

# Paul Tol's "muted" scheme: ten colours that stay apart for every kind of colour vision.
COLOURS = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#BBBBBB")
# Blues for counts, darker for more. The first blue differs visibly from white, because white means a count of 0.
BLUES = ListedColormap(colormaps["Blues"](np.linspace(0.25, 1.0, 256)))
MOST_BARS = 30
MOST_COLUMNS = 2000
TABLE_CLIENTS = 20
TABLE_CLASSES = 12


def class_histogram(labels: ArrayLike, partition: Partition, classes: int) -> Ints:
    """(clients, classes) int64: how many samples of each class each client holds.

    Args:
        labels: (N,) integers in [0, classes).
    """
    clients = len(partition)
    owners = np.repeat(np.arange(clients), partition.sizes)
    cells = owners * classes + np.asarray(labels, dtype=np.int64)[partition.order]
    return np.bincount(cells, minlength=clients * classes).reshape(clients, classes)


def plot_partition(labels: ArrayLike, partition: Partition, class_names: tuple[str, ...]) -> Figure:
    """`draw_partition` in a new figure, without pyplot: save it by `figure.savefig(path)`."""
    if _few(partition, class_names):
        size = 9, 1.9 + 0.24 * max(len(partition), 4)
    else:
        size = 11, 2.4 + _row_inches(len(class_names))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    draw_partition(labels, partition, class_names, figure)
    return figure


def draw_partition(
    labels: ArrayLike, partition: Partition, class_names: tuple[str, ...], figure: Figure | SubFigure
) -> None:
    """Draws the class histogram: stacked bars for few clients and classes, else a heat map.

    Of more than 2,000 clients, 2,000 evenly spaced ones are drawn, because the picture has no more columns of pixels.

    Args:
        labels: (N,) integers, indices into `class_names`.
        figure: an empty figure, or an empty part of one.
    """
    if len(partition) > MOST_COLUMNS:
        partition = _evenly_spaced(partition, MOST_COLUMNS)
    counts = class_histogram(labels, partition, len(class_names))
    draw = _bars if _few(partition, class_names) else _heat_map
    draw(counts, partition.name, class_names, figure)


def _evenly_spaced(partition: Partition, clients: int) -> Partition:
    held = [partition[i] for i in np.linspace(0, len(partition) - 1, clients).astype(int)]
    name = f"of {len(partition):,}" + (f", {partition.name}" if partition.name else "")
    return Partition(np.concatenate(held), np.cumsum([0, *map(len, held)]), name=name)


def _few(partition: Partition, class_names: tuple[str, ...]) -> bool:
    return len(partition) <= MOST_BARS and len(class_names) <= len(COLOURS)


def _row_inches(classes: int) -> float:
    """Height of all rows of a heat map together; with more than 30 classes the rows are thinner."""
    return 0.24 * min(max(classes, 10), 30)


def _bars(counts: Ints, name: str, class_names: tuple[str, ...], figure: Figure | SubFigure) -> None:
    clients = len(counts)
    axes = figure.add_subplot()
    left = np.zeros(clients, np.int64)
    for label, class_name in enumerate(class_names):
        axes.barh(
            range(clients), counts[:, label], left=left, height=0.82, color=COLOURS[label], label=class_name,
            edgecolor="white", linewidth=0.4,
        )  # fmt: skip
        left += counts[:, label]
    axes.set(title=title_of(name, clients), xlabel="samples", yticks=range(clients))
    axes.set_ylabel("client", labelpad=8)
    axes.set_ylim(clients - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, title="class")


def _heat_map(counts: Ints, name: str, class_names: tuple[str, ...], figure: Figure | SubFigure) -> None:
    """A row for each class, a column for each client. Clients with the same main class are neighbours, as blocks."""
    clients, classes = counts.shape
    order = np.lexsort((-counts.max(axis=1), counts.argmax(axis=1)))
    counts = counts[order]
    sizes, cells = figure.subplots(2, 1, sharex=True, height_ratios=(0.9, _row_inches(classes)))
    sizes.stairs(counts.sum(axis=1), np.arange(clients + 1) - 0.5, fill=True, color=BLUES(0.8))
    sizes.set(title=title_of(name, clients), ylabel="samples", ylim=(0, None))
    sizes.spines[["top", "right"]].set_visible(False)
    most = max(int(counts.max()), 2)
    image = cells.imshow(
        np.ma.masked_equal(counts.T, 0), norm=LogNorm(1, most), cmap=BLUES, aspect="auto", interpolation="nearest"
    )
    cells.set(xlabel="clients, sorted by their main class (not by id)", ylabel="class")
    cells.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name_classes(cells, class_names)
    figure.colorbar(image, ax=cells, label="samples (white: none)", pad=0.01, format=LogFormatter())


def _name_classes(axes: Axes, class_names: tuple[str, ...]) -> None:
    step = -(-len(class_names) // 25)
    shown = range(0, len(class_names), step)
    axes.set_yticks(list(shown), [class_names[label] for label in shown])


def title_of(name: str, clients: int) -> str:
    return f"{clients} client{'s' * (clients != 1)}" + (f", {name}" if name else "")


def histogram_text(labels: ArrayLike, partition: Partition, class_names: tuple[str, ...], width: int = 120) -> str:
    """The class histogram as a table for the terminal, of the first 20 clients, and one line about all of them.

    Args:
        labels: (N,) integers, indices into `class_names`.
        width: columns of the terminal; no line is longer, unless a word is.
    """
    counts = class_histogram(labels, partition, len(class_names))
    headings, key = _headings(counts, class_names, width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("client", "samples", "classes", *headings):
        table.add_column(heading, justify="right", no_wrap=True)
    for client, row in enumerate(counts[:TABLE_CLIENTS]):
        cells = (str(count) if count else "." for count in row[: len(headings)])
        table.add_row(str(client), str(row.sum()), str(np.count_nonzero(row)), *cells)
    out = io.StringIO()
    Console(file=out, width=width, markup=False, emoji=False).print(table)
    rows = [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
    more = f"... and {len(partition) - TABLE_CLIENTS} more clients" if len(partition) > TABLE_CLIENTS else ""
    texts = (title_of(partition.name, len(partition)), key, more, summary(counts, partition.moved))
    title, *rest = (_wrapped(text, width) for text in texts)
    return "\n".join([*title, *rows, *(line for lines in rest for line in lines)])


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines that end behind a comma or a semicolon, or where that makes no line short enough, a word."""
    glued = re.sub(r"(?<![,;]) ", "\N{NO-BREAK SPACE}", text)
    phrases = (line.replace("\N{NO-BREAK SPACE}", " ") for line in textwrap.wrap(glued, width, break_long_words=False))
    return [line for phrase in phrases for line in textwrap.wrap(phrase, width, break_long_words=False)]


def _headings(counts: Ints, class_names: tuple[str, ...], width: int) -> tuple[tuple[str, ...], str]:
    """Column headings, and a line that explains them: names if they fit, else numbers, else no headings."""
    numbers = tuple(str(label) for label in range(len(class_names)))
    key = "classes: " + ", ".join(f"{n} {name}" for n, name in zip(numbers, class_names, strict=True))
    digits = len(str(counts.max()))
    for headings, explanation in ((class_names, ""), (numbers, key)):
        needed = 26 + sum(max(len(heading), digits) + 2 for heading in headings)
        if len(class_names) <= TABLE_CLASSES and needed <= width:
            return headings, explanation
    return (), ""


def summary(counts: Ints, moved: int) -> str:
    """One line about a class histogram (clients, classes), and about `Partition.moved` if it is not 0."""
    sizes = counts.sum(axis=1)
    line = (
        f"samples per client: min {sizes.min()}, median {np.median(sizes):g}, max {sizes.max()}; "
        f"mean classes per client: {np.count_nonzero(counts, axis=1).mean():.1f}"
    )
    return line + (f"; moved to hold the floor: {moved} of {sizes.sum()} samples" if moved else "")
