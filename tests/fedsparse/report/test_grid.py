"""Reading a sweep file, and the line for each mistake in it."""

from pathlib import Path

import pytest

from fedsparse.config import Config
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError
from fedsparse.report.grid import read_sweep, spread

ROOT = Path(__file__).parents[3]


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "file.yaml").write_text(text)
    return tmp_path / "file.yaml"


def test_a_grid_is_every_combination_and_its_last_setting_varies_fastest() -> None:
    assert spread({"beta": [1, 2], "seed": [0, 1], "lr": 0.1}) == [
        {"beta": b, "seed": s, "lr": 0.1} for b in (1, 2) for s in (0, 1)
    ]


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("density: [1e-2, 5e-3, '0.1']", [0.01, 0.005, 0.1]),  # YAML 1.1 takes 1e-2 for text
        ("lr: [1, 5e-1]", [1.0, 0.5]),
        ("seed: ['1', 2]", [1, 2]),
        ("augment: ['yes', no]", [True, False]),
        ("latency-ms: [50, lognormal:50:1]", ["50", "lognormal:50:1"]),
    ],
)
def test_cells_hold_validated_values_however_they_are_written(tmp_path: Path, axis: str, values: list) -> None:
    key = axis.partition(":")[0]
    cells = read_sweep(write(tmp_path, f"base: {{uplink-mbps: 5}}\ngrid: {{{axis}}}"), {}).cells
    held = [cell.chosen[key] for cell in cells]
    assert held == values
    assert list(map(type, held)) == list(map(type, values))
    assert [cell.config.flat()[key] for cell in cells] == values


def test_a_value_that_is_written_in_two_ways_is_one_cell(tmp_path: Path) -> None:
    (cell,) = read_sweep(write(tmp_path, "grid: {density: [1e-2, 0.01, '0.010']}"), {}).cells
    assert cell.name.startswith("density=0.01-")


def test_each_row_of_runs_is_combined_with_the_grid(tmp_path: Path) -> None:
    text = "grid: {seed: [0, 1]}\nruns:\n - {compressor: none}\n - {compressor: topk, density: [0.1, 0.2]}\n"
    sweep = read_sweep(write(tmp_path, text), {})
    assert sweep.name == "file"
    assert [cell.chosen for cell in sweep.cells] == [
        {**run, "seed": seed}
        for seed in (0, 1)
        for run in (
            {"compressor": "none"},
            {"compressor": "topk", "density": 0.1},
            {"compressor": "topk", "density": 0.2},
        )
    ]
    default = Config().density
    assert [cell.config.density for cell in sweep.cells] == [default, 0.1, 0.2] * 2


def test_grid_and_runs_override_flags_and_flags_override_base(tmp_path: Path) -> None:
    (cell,) = read_sweep(
        write(tmp_path, "base: {rounds: 5, lr: 0.2, distribution: dirichlet}\ngrid: {beta: [0.3]}\n"),
        {"rounds": "7", "beta": "0.9"},
    ).cells
    assert (cell.config.rounds, cell.config.lr, cell.config.beta) == (7, 0.2, 0.3)


def typed(**flags: str) -> Given:
    given = Given(flags)
    given.typed = frozenset(flags)
    return given


def test_a_flag_that_changes_no_cell_is_refused(tmp_path: Path) -> None:
    for text, flag, tried in (
        ("grid: {seed: [0, 1], lr: [0.1, 0.2]}", {"seed": "7"}, "seed = 0, 1"),
        ("runs: [{density: 0.1}, {density: [0.2, 0.3], lr: 0.1}]", {"density": "0.5"}, "density = 0.1, 0.2, 0.3"),
    ):
        ((key, value),) = flag.items()
        with pytest.raises(ConfigError, match=f"--{key} {value} has no effect: the file itself tries {tried}"):
            read_sweep(write(tmp_path, text), typed(**flag))
        assert read_sweep(write(tmp_path, text), flag).cells  # from a file of settings, which means nothing by it


def test_a_flag_that_changes_some_cells_is_taken(tmp_path: Path) -> None:
    cells = read_sweep(write(tmp_path, "runs: [{density: 0.1}, {lr: 0.2}]"), typed(density="0.5")).cells
    assert [cell.config.density for cell in cells] == [0.1, 0.5]


def test_cells_that_differ_only_in_settings_without_effect_are_one_cell(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path, "grid: {distribution: [iid, dirichlet], beta: [0.1, 0.5]}"), {})
    assert [cell.chosen for cell in sweep.cells] == [
        {"distribution": "iid"},
        {"distribution": "dirichlet", "beta": 0.1},
        {"distribution": "dirichlet", "beta": 0.5},
    ]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ("strategy: fedavg", "server-momentum: [0.5, 0.9]"),
        ("compressor: topk", "dgc-momentum: [0.5, 0.9]"),
        ("compressor: topk", "rank: [1, 2]"),
        ("sparsity: 0.5", "readjustment-ratio: [0.1, 0.3]"),
        ("eval-clients: false", "holdout: [0.1, 0.2]"),
        ("compressor: none", "residual-decay: [0.5, 1]"),
        ("topology: dense", "sparsity: [0.5, 0.9]"),
    ],
)
def test_a_setting_without_effect_makes_no_cells(tmp_path: Path, settings: str, key: str) -> None:
    sweep = read_sweep(write(tmp_path, f"base: {{{settings}}}\ngrid: {{{key}, seed: [0, 1]}}"), {})
    assert [cell.chosen for cell in sweep.cells] == [{"seed": 0}, {"seed": 1}]


def test_every_cell_has_a_folder_of_its_own_named_by_its_settings(tmp_path: Path) -> None:
    cells = read_sweep(write(tmp_path, "base: {distribution: dirichlet}\ngrid: {beta: [0.1, 0.5], seed: [0, 1]}"), {})
    names = [cell.name for cell in cells.cells]
    assert len(set(names)) == 4
    assert names[0].startswith("beta=0.1,seed=0-")


def test_a_setting_may_have_characters_that_no_folder_name_has(tmp_path: Path) -> None:
    (cell,) = read_sweep(write(tmp_path, "grid: {dataset: [../some where/x.npz]}"), {}).cells
    assert "/" not in cell.name
    assert " " not in cell.name


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("grid: {densty: [1]}", "unknown setting densty; did you mean density?"),
        ("base: {densty: 1}", "unknown setting densty; did you mean density?"),
        ("runs: [{densty: 1}]", "unknown setting densty; did you mean density?"),
        ("plot: {x: densty}", "unknown setting densty; did you mean density?"),
        ("plot: {y: density}", "plot has no 'y'"),
        ("base: {lr: 0.1}", "there is nothing to try in it"),
        ("grid: {outfile: [a, b]}", "outfile cannot vary"),
        ("gird: {seed: [1]}", "unknown part 'gird'; a sweep has base, grid, runs, plot"),
        ("grid: {density: [0.1, 2]}", "density = 2: should be less than or equal to 1"),
        ("grid: {seed: []}", "seed has no values"),
        ("grid: [seed]", "grid should hold lines like"),
        ("runs: {seed: 1}", "runs should be a list of settings"),
        ("grid: {seed: [0]}\nruns: [{seed: 1}]", "seed is in both grid and runs"),
    ],
)
def test_a_mistake_in_any_cell_is_one_line_that_names_the_file(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_sweep(write(tmp_path, text), {})
    assert line in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "file.yaml"))
    assert "\n" not in str(error.value)
