"""Finding the object of a name: from the catalogue, a module, or a user's file."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from fedsparse import catalogue
from fedsparse.errors import PluginError
from fedsparse.plugins import absolute, call, is_own, load, named

ABOUT_NAMES = {"MODELS_OF", "USUAL_MODEL"}
"""What the catalogue says about its names."""


@pytest.mark.parametrize("kind", [name for name in vars(catalogue) if name.isupper() and name not in ABOUT_NAMES])
def test_every_name_of_the_catalogue_can_be_loaded(kind: str) -> None:
    for name in (names := getattr(catalogue, kind)):
        if kind != "TRACKERS" or name == "tensorboard" or find_spec(name):  # the others need not be installed
            assert callable(named(names, name))


def test_the_catalogue_imports_nothing() -> None:
    assert "import" not in Path(catalogue.__file__).read_text().replace("imports nothing", "")


def test_a_file_is_executed_once_and_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"class Thing:\n    place = {folder!r}\n")
    first, second = (load(f"{tmp_path}/{folder}/mine.py:Thing") for folder in ("a", "b"))
    assert (first.place, second.place) == ("a", "b")
    assert load(f"{tmp_path}/a/mine.py:Thing") is first


def test_a_file_that_fails_is_tried_again_when_it_is_mended(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("1 / 0\n")
    with pytest.raises(PluginError, match=r"ZeroDivisionError: division by zero \(mine.py, line 1\)") as error:
        load(f"{file}:thing")
    assert "1 / 0" in error.value.traceback
    file.write_text("thing = 3  # mended\n")
    assert load(f"{file}:thing") == 3


def test_a_relative_file_and_a_module_of_this_folder_become_absolute_and_other_modules_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "only_here.py").write_text("")
    wanted = f"{tmp_path}/only_here.py:f"
    for path in (sys.path, [*sys.path, str(tmp_path)]):
        monkeypatch.setattr(sys, "path", path)
        assert absolute("only_here.py:f") == absolute("only_here:f") == wanted
    assert absolute("torch.optim:AdamW") == "torch.optim:AdamW"


def test_a_module_of_a_package_keeps_its_name_in_the_packages_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(catalogue.__file__).parents[1])
    assert absolute("fedsparse.plugins:load") == "fedsparse.plugins:load"


def test_only_a_place_and_an_attribute_are_ones_own() -> None:
    assert is_own("mine.py:Net")
    assert is_own("package.mine:Net")
    assert not any(map(is_own, ("topk", "2:4", "uniform:1:2", ":Net", "mine.py", "C:")))


def test_a_function_gets_the_settings_that_its_signature_has() -> None:
    assert call(lambda a, b=0: (a, b), 1, b=2, c=3) == (1, 2)
    assert call(lambda **settings: settings, b=2, c=3) == {"b": 2, "c": 3}
