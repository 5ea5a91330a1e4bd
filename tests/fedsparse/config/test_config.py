"""Config: one name in four places, and one clear line for a mistake."""

import tomllib
from pathlib import Path

import pytest

from fedsparse.catalogue import STRATEGIES
from fedsparse.commands.command_line import Command, parse
from fedsparse.config import KEYS, Config
from fedsparse.config.generate import default_yaml, run_config, settings_page
from fedsparse.config.yaml_file import read_yaml
from fedsparse.errors import ConfigError
from fedsparse.report.grid import read_sweep

RUN = Command("fedsparse.commands.run:run", "train a federation")
ROOT = Path(__file__).parents[3]


def test_flowers_run_config_in_pyproject_equals_the_defaults() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["tool"]["flwr"]["app"]["config"] == Config().flat()


def test_every_shipped_config_is_valid() -> None:
    files = sorted((ROOT / "configs").glob("*.yaml"))
    assert {"default.yaml", "quick-test.yaml", "cifar10-dirichlet.yaml"} <= {f.name for f in files}
    for file in files:
        if {"base", "grid"} & read_yaml(file).keys():
            assert read_sweep(file, {}).cells
        else:
            Config.from_mapping(read_yaml(file))


def test_default_yaml_is_the_defaults_whole() -> None:
    written = read_yaml(ROOT / "configs/default.yaml")
    assert written.keys() == Config().flat().keys()
    assert Config.from_mapping(written) == Config()


def test_what_follows_from_the_settings_equals_the_output_of_its_generator() -> None:
    assert (ROOT / "configs/default.yaml").read_text() == default_yaml()
    assert (ROOT / "pyproject.toml").read_text().endswith(run_config())
    assert (ROOT / "docs/settings.md").read_text() == settings_page()


@pytest.mark.parametrize("nothing", ["null", "~", ""])
def test_a_setting_of_nothing_is_refused_in_a_file_as_it_is_in_python(nothing: str, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(f"outfile: {nothing}\n")
    for settings in (read_yaml(tmp_path / "one.yaml"), {"outfile": None}):
        with pytest.raises(ConfigError, match="outfile = nothing: should be a valid string"):
            Config.from_mapping(settings)


@pytest.mark.parametrize(
    ("key", "typed", "meant"),
    [
        ("nm", "2:4", "2:4"),
        ("amp", "off", "off"),
        ("cohort-batching", "on", "on"),
        ("augment", "on", True),
        ("augment", "no", False),
        ("name", "42", "42"),
        ("name", "1e3", "1e3"),
        ("seed", "010", 10),
        ("lr", "1e-2", 0.01),
        ("workers", "2", 2),
        ("amp", "no", "amp = no: should be 'off', 'bf16' or 'fp16'"),
        ("server-lr", "true", "server-lr = true: should be a valid number or 'auto'"),
        ("workers", "true", "workers = true: should be a valid integer or 'auto'"),
        ("seed", "0x10", "seed = 0x10: should be a valid integer"),
        ("rounds", "0x10", "rounds = 0x10: should be a valid integer"),
    ],
)
def test_a_file_and_a_flag_read_the_same_text_alike(key: str, typed: str, meant: object, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(f"{key}: {typed}\n")
    rest = {"upload-pruning": "sparsegpt"} if key == "nm" else {}
    from_file, from_flag = (
        read_yaml(tmp_path / "one.yaml"),
        parse([f"--{key}={typed}"], {"run": RUN}, "main.py").settings,
    )
    for settings in (from_file, from_flag):
        try:
            value = Config.from_mapping(settings | rest).flat()[key]
        except ConfigError as error:
            value = str(error)
        assert value == meant


def test_every_field_has_help() -> None:
    assert not [name for name, field in Config.model_fields.items() if not field.description]


def test_every_strategy_can_be_named() -> None:
    for name in STRATEGIES:
        assert Config.from_mapping({"strategy": name}).strategy == name


def test_settings_survive_flowers_run_config() -> None:
    config = Config.from_mapping({"beta": "0.3", "rounds": "7", "error_feedback": "off", "workers": "2"})
    assert (config.beta, config.rounds, config.error_feedback, config.workers) == (0.3, 7, False, 2)
    assert Config.from_mapping(config.flat()) == config


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"densty": 0.1}, "unknown setting densty; did you mean density?"),
        ({"density": 0}, "density = 0: should be greater than 0"),
        ({"density": "1.5"}, "density = 1.5: should be less than or equal to 1"),
        ({"density": float("nan")}, "density = nan: should be a finite number"),
        ({"beta": -1}, "beta = -1: should be greater than 0"),
        ({"rounds": 2.5}, "rounds = 2.5: should be a valid integer"),
        (
            {"distribution": "uniform"},
            "distribution = uniform: should be iid, dirichlet, dirichlet-per-client, "
            "dirichlet-self-balancing, shards, natural",
        ),
        ({"clients": 5}, "clients-per-round = 10 is more than clients = 5"),
        ({"device": "gpu"}, "device = gpu: should be: auto, cpu, mps, cuda or cuda:N."),
        ({"uplink_mbps": "fast"}, "uplink-mbps = fast: should be a number above 0, uniform:LOW:HIGH"),
        ({"density": True}, "density = True: should be a valid number"),
        ({"model": "a\nb"}, "model = 'a\\nb': should be"),
        ({"name": "../up"}, "name = ../up: should be: Name of the run folder, of letters"),
        ({"workers": 0}, "workers = 0: should be auto or at least 1"),
        ({"sparsity": 1}, "sparsity = 1: should be less than 1"),
        ({"topology": "lottery"}, "topology = lottery: should be auto, dense, static"),
        ({"readjustment-end": 500}, "readjustment-end = 500 is more than rounds = 150"),
        ({"need-readjust": True}, "need-readjust with sparsity = 0"),
        ({"need-readjust": True, "sparsity": 0.5, "topology": "ssfl"}, "need-readjust with topology = ssfl"),
    ],
)
def test_a_mistake_is_one_line_that_names_key_value_and_what_is_allowed(settings: dict, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config.from_mapping(settings)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "line"), [("- a\n- b\n", "not a list"), ("a: [1", "not valid YAML")])
def test_a_file_that_is_no_mapping_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=line) as error:
        read_yaml(tmp_path / "bad.yaml")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cannot read config file nowhere\.yaml"):
        read_yaml("nowhere.yaml")


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({}, "dense"),
        ({"sparsity": 0.5}, "static"),
        ({"sparsity": 0.5, "need-readjust": True}, "feddst"),
        ({"sparsity": 0.5, "need-readjust": True, "topology": "rigl"}, "rigl"),
        ({"sparsity": 0.5, "topology": "dense"}, "dense"),
    ],
)
def test_auto_finds_the_topology_from_the_other_settings(settings: dict, method: str) -> None:
    assert Config.from_mapping(settings).topology_method == method


def test_readjustment_ends_before_the_run_does() -> None:
    assert Config(rounds=100).readjustment()["end"] == 75
    assert Config(rounds=1).readjustment()["end"] == 1
    assert Config(rounds=100, readjustment_end=40).readjustment()["end"] == 40


def test_keys_are_kebab_case() -> None:
    assert "clients-per-round" in KEYS
