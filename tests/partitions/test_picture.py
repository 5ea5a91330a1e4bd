"""The class histogram as numbers, picture and table."""

import io

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from fedsparse.partitions import dirichlet, iid, partition
from fedsparse.partitions.picture import class_histogram, histogram_text, plot_partition
from fedsparse.partitions.split import OwnersFunction

LABELS = np.random.default_rng(0).integers(0, 10, 5000)
NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def test_the_histogram_counts_the_classes_of_every_client() -> None:
    result = partition(LABELS, dirichlet.owners, 30, seed=0, beta=0.1)
    counts = class_histogram(LABELS, result, 11)
    for client in range(30):
        assert counts[client].tolist() == np.bincount(LABELS[result[client]], minlength=11).tolist()


def bars_and_images(figure: Figure) -> tuple[int, int]:
    return sum(len(axes.patches) for axes in figure.axes), sum(len(axes.images) for axes in figure.axes)


@pytest.mark.parametrize("clients", [1, 2, 30, 31, 1000])
@pytest.mark.parametrize("owners", [iid.owners, dirichlet.owners])
def test_a_picture_is_drawn_for_few_and_for_many_clients(clients: int, owners: OwnersFunction) -> None:
    result = partition(LABELS, owners, clients, name="mine", seed=0, beta=0.1)
    figure = plot_partition(LABELS, result, NAMES)
    bars, heat_maps = bars_and_images(figure)
    assert (bars, heat_maps) == ((clients * 10, 0) if clients <= 30 else (1, 1))
    title = figure.axes[0].get_title()
    assert f"{clients} client" in title
    assert result.name in title
    file = io.BytesIO()
    figure.savefig(file)
    file.seek(0)
    height, width, _ = image.imread(file).shape
    assert 600 < width < 2000
    assert 200 < height < 2000


def test_the_picture_of_a_million_clients_shows_some_and_says_so() -> None:
    labels = np.arange(1_000_000) % 10
    figure = plot_partition(labels, partition(labels, iid.owners, 1_000_000, seed=0, name="iid"), NAMES)
    assert figure.axes[1].images[0].get_array().shape == (10, 2000)
    assert figure.axes[0].get_title() == "2000 clients, of 1,000,000, iid"


def test_bars_show_the_counts_and_the_legend_names_the_classes() -> None:
    result = partition(LABELS, dirichlet.owners, 5, seed=0, beta=0.5)
    axes = plot_partition(LABELS, result, NAMES).axes[0]
    widths = np.array([[bar.get_width() for bar in group] for group in axes.containers]).T
    assert widths.astype(int).tolist() == class_histogram(LABELS, result, 10).tolist()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(NAMES)


def test_very_many_classes_are_a_heat_map_even_for_two_clients() -> None:
    labels = np.arange(5000) % 100
    names = tuple(f"class {label}" for label in range(100))
    result = partition(labels, iid.owners, 2, seed=0)
    assert bars_and_images(plot_partition(labels, result, names)) == (1, 1)
    assert "class 7" not in histogram_text(labels, result, names)


def test_a_picture_leaves_pyplot_alone() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    plot_partition(LABELS, partition(LABELS, iid.owners, 3, seed=0), NAMES)
    assert pyplot.get_fignums() == []


def test_the_table_shows_every_client_and_a_summary() -> None:
    result = partition(LABELS, dirichlet.owners, 3, seed=0, beta=0.1, name="dirichlet")
    counts = class_histogram(LABELS, result, 10)
    lines = histogram_text(LABELS, result, NAMES, width=120).splitlines()
    assert lines[0] == "3 clients, dirichlet, beta 0.1"
    assert all(name in lines[1] for name in NAMES)
    for client, line in enumerate(lines[3:6]):
        expected = [client, counts[client].sum(), np.count_nonzero(counts[client]), *counts[client]]
        assert line.replace(".", "0").split() == [str(number) for number in expected]
    assert lines[-1].startswith(f"samples per client: min {counts.sum(1).min()}, median ")
    assert "moved" not in lines[-1]


def test_names_of_classes_are_shown_as_they_are() -> None:
    names = ("[red]a[/red]", ":bug:")
    labels = np.arange(20) % 2
    text = histogram_text(labels, partition(labels, iid.owners, 2, seed=0), names)
    assert all(name in text for name in names)


def test_a_long_table_is_cut_at_twenty_clients_and_says_so() -> None:
    result = partition(LABELS, dirichlet.owners, 100, seed=0, beta=0.05, min_samples=20)
    text = histogram_text(LABELS, result, NAMES)
    assert "... and 80 more clients" in text
    assert f"moved to hold the floor: {result.moved} of 5000 samples" in text
    assert len(text.splitlines()) < 30


@pytest.mark.parametrize("clients", [12, 30])
@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_every_line_fits_the_terminal(width: int, clients: int) -> None:
    split = partition(LABELS, dirichlet.owners, clients, seed=0, name="dirichlet", beta=0.1, min_samples=100)
    text = histogram_text(LABELS, split, NAMES, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("\n\n") == 0
    assert "…" not in text
