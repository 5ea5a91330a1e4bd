"""The pages for people: every file that they name is there, and the program that they print does what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedsparse.catalogue import AGGREGATORS, COMPRESSORS, TOPOLOGIES, VALUES
from fedsparse.config.presets import PRESETS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROMISES = ROOT / "docs" / "reliability.md"
PRODUCT = ("main.py", "fedsparse", "clients", "strategies", "partitions", "benchmarks", "configs", "examples", "docs")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_links_to_and_names_only_what_is_there(page: Path) -> None:
    text = page.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    named = re.findall(rf"(?<![\w/.-])((?:{'|'.join(PRODUCT)}|tests)/[\w/.-]*\w)", text)
    assert not [link for link in links if link and not (page.parent / link).exists()]
    assert not [name for name in named if name != "fedsparse/1" and not (ROOT / name).exists()]  # the wire format


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_to_a_heading_finds_it(page: Path) -> None:
    links = [link.partition("#") for link in re.findall(r"\]\(([^):]+#[^)]+|#[^)]+)\)", page.read_text())]
    assert not [f"{file}#{heading}" for file, _, heading in links if heading not in headings(page.parent / file, page)]


def headings(file: Path, page: Path) -> set[str]:
    """The headings of a page (of ``page``, if ``file`` is its folder) as they stand in links."""
    text = re.sub(r"^```.*?^```", "", (page if file.is_dir() else file).read_text(), flags=re.M | re.S)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)}


def test_every_promise_about_reliability_names_tests_that_are_there() -> None:
    defined = set(re.findall(r"^def (test_\w+)", "\n".join(f.read_text() for f in ROOT.glob("tests/**/*.py")), re.M))
    text = PROMISES.read_text()
    tables = re.findall(r"^\| promise \| test \|\n\|[-|]+\n((?:\|.*\n)+)", text, re.M)
    promises = [row.rsplit(" | ", 1) for table in tables for row in table.splitlines()]
    assert len(tables) == 5
    assert len(promises) > 20
    for promise, tests in promises:
        assert re.findall(r"`(test_\w+)`", tests), promise
    assert set(re.findall(r"`(test_\w+)`", text)) <= defined


def test_every_row_of_the_comparison_with_others_names_its_sources() -> None:
    table = (ROOT / "README.md").read_text().partition("## Beside its neighbours")[2].partition("\n\nSo:")[0]
    rows = re.findall(r"^\| ([a-z][^|]+?) \|", table, re.M)
    sources = re.findall(r"^- \*\*(.+?)\.\*\*", (ROOT / "docs" / "neighbours.md").read_text(), re.M)
    assert len(rows) > 10
    assert rows == sources
    compressors, topologies = {*COMPRESSORS, *PRESETS} - {"none"}, TOPOLOGIES.keys() - {"dense", "small-dense"}
    assert f"| compressors of updates | {len(compressors)}, and {len(VALUES)} value codings |" in table
    assert f"| sparse topologies | {len(topologies)} |" in table
    assert f"| rules against hostile clients | {len(AGGREGATORS.keys() - {'mean'})} |" in table


def test_the_gallery_shows_all_pictures_that_its_program_makes_and_they_are_small() -> None:
    made = re.findall(r'"([\w-]+\.(?:png|svg))"', (ROOT / "docs" / "gallery.py").read_text())
    shown = re.findall(r"\(gallery/([\w.-]+)\)", (ROOT / "docs" / "gallery.md").read_text())
    kept = {file.name: file.stat().st_size for file in (ROOT / "docs" / "gallery").iterdir()}
    assert set(made) == set(shown) == kept.keys()
    assert sum(kept.values()) < 600_000


def test_the_tree_of_files_names_only_files_that_are_there() -> None:
    tree = (ROOT / "CONTRIBUTING.md").read_text().split("```")[3]
    folder, gone = "", []
    for line in filter(None, tree.splitlines()):
        name, indented = line.split()[0], line.startswith(" ")
        folder = folder if indented else name
        path = ROOT / folder / name if indented else ROOT / name
        gone += [str(path)] * (not path.exists())
    assert not gone


def test_the_program_about_compression_alone_has_fifteen_lines_and_loses_nothing(tmp_path: Path) -> None:
    (program,) = re.findall(r"# codec\.py\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    assert len(program.splitlines()) - program.splitlines().count("") <= 15
    (tmp_path / "codec.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{program}")
    done = subprocess.run([sys.executable, "codec.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert float(done.stdout.split("lost:")[1]) < 1e-4


def test_the_map_of_the_code_names_every_file() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    files = [file for folder in PRODUCT[1:5] for file in (ROOT / folder).glob("**/*.py") if file.name != "__init__.py"]
    assert not [str(file.relative_to(ROOT)) for file in files if file.name not in text]
