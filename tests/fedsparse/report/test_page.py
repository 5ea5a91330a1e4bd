"""report.html, read as a parser and as a browser read it."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedsparse.config import Config
from fedsparse.report.compare import Comparison
from fedsparse.report.early_exits import exit_curves
from fedsparse.report.found import FoundRuns
from fedsparse.report.options import Options
from fedsparse.report.page import write_page
from fedsparse.report.reproduce import command
from fedsparse.report.results import identity
from tests.fedsparse.report.made_up import result

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = """</pre></script><script>document.title='owned'</script><img src=x onerror="document.title='owned'">"""


class Elements(HTMLParser):
    """The elements of a page, with their attributes and their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.found)


def runs(folder: Path, count: int = 3, log: str = "", rounds: int = 5) -> Path:
    """Folders of a sweep over the compressor, with two seeds each."""
    names = ("none", "topk", "eden", "randomk", "stc", "signsgd")
    for n in range(count):
        for seed in (0, 1):
            accuracies = [0.1, *(0.4 + 0.01 * i + 0.02 * (n % 7) + 0.01 * seed for i in range(rounds))]
            lr = {"lr": 0.1 + n / 1000} if count > len(names) else {}
            made = result(accuracies, seed=seed, compressor=names[n % 6], density=0.005 * (n + 1), **lr)
            for row in made["rounds"]:
                row |= {"compress/density": 0.05, "time/forward": 1.0, "time/compress": 0.5}
            home = folder / f"{n}-{seed}"
            home.mkdir(parents=True)
            (home / "result.json").write_text(json.dumps(made))
            if log:
                (home / "log.txt").write_text(log)
    return folder


def page(folder: Path, **flags: str) -> str:
    found = FoundRuns([folder])
    write_page(folder, Comparison(found.runs, Options.of(**flags)), found.files, None, found.notes)
    return (folder / "report.html").read_text()


def test_a_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    text = page(runs(tmp_path))
    elements = Elements(text)
    assert not [a for tag, a in elements.found if tag in ("iframe", "object", "embed", "base")]
    links = [a.get(key) for _, a in elements.found for key in ("src", "href", "action", "srcset") if key in a]
    assert all(str(link).startswith("data:") for link in links)
    assert not re.search(r"https?:|@import|url\(", text)
    (policy,) = [a["content"] for _, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'")


def test_what_a_client_said_is_text_and_never_becomes_an_element(tmp_path: Path) -> None:
    clean = Elements(page(runs(tmp_path / "clean", log="WARNING  round 1: client 3 failed: x\n")))
    hostile = Elements(page(runs(tmp_path / "hostile", log=f"WARNING  round 1: client 3 failed: {HOSTILE}\n")))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in clean.found]
    assert HOSTILE in hostile.text


def test_a_setting_with_marks_of_html_is_text_in_tables_charts_and_attributes(tmp_path: Path) -> None:
    name = "\"><script>document.title='owned'</script>.npz"
    for n, dataset in enumerate((name, "mnist")):
        made = result([0.1, 0.5, 0.6], dataset=dataset)
        (tmp_path / str(n)).mkdir()
        (tmp_path / str(n) / "result.json").write_text(json.dumps(made))
    elements = Elements(page(tmp_path))
    assert elements.count("script") == 1
    assert f"dataset {name}" in {a.get("data-name") for _, a in elements.found}


def test_a_wrapped_warning_is_one_line_and_a_long_log_is_cut(tmp_path: Path) -> None:
    wrapped = "WARNING  round 1: client 0 failed: NonFiniteError: update of layer\n         has NaN\nround 1/5\n"
    text = Elements(page(runs(tmp_path, log=wrapped * 20))).text
    assert "update of layer has NaN" in text
    assert "and 8 more lines of its log" in text


def test_refused_clients_and_how_a_run_ended_are_told(tmp_path: Path) -> None:
    made = result([0.1, 0.2], ended="interrupted", rounds=60)
    made["rounds"][1] |= {"comm/failures": 3, "refused/norm": 2}
    (tmp_path / "result.json").write_text(json.dumps(made))
    text = Elements(page(tmp_path)).text
    assert "interrupted, round 1 of 60" in text
    assert "failures 3, norm 2" in text


def test_a_run_with_exits_has_a_line_over_its_computation_with_a_mark_for_each_threshold(tmp_path: Path) -> None:
    for seed, exits in ((0, 0), (0, 2), (1, 2)):
        made = result([0.1, 0.5, 0.6], exits=exits, seed=seed)
        if exits:
            points = [(0, 1e5, 0.4), (0.5, 3e5, 0.5 + 0.1 * seed), (1, 1e6, 0.6)]
            made["summary"]["early-exits"] = [
                {"threshold": t, "multiply_adds": cost, "accuracy": share} for t, cost, share in points
            ]
        (tmp_path / f"{exits}-{seed}").mkdir()
        (tmp_path / f"{exits}-{seed}" / "result.json").write_text(json.dumps(made))
    (curve,) = exit_curves(FoundRuns([tmp_path]).runs, "accuracy")
    assert (curve.settings, curve.thresholds) == ({"exits": 2}, (0, 0.5, 1))
    assert curve.mean.tolist() == [0.4, 0.55, 0.6]
    last = page(tmp_path).split("<svg")[-1]
    assert "multiply-adds" in last
    assert re.findall(r"<text[^>]*>([\d.]+)</text></?[gp]", last)[-1] == "1"
    assert re.findall(r'data-name="([^"]*)"', last) == ["exits 2"]
    assert last.count("<circle") == 3


def test_the_command_of_a_run_has_the_runs_numbers(tmp_path: Path) -> None:
    made = result([0.1, 0.5], compressor="topk", density=0.01, augment=False, distribution="dirichlet", seed=7)
    typed = command(made)
    assert typed.startswith("python main.py ")
    asked = typed.split()[2:]
    settings = dict(zip((flag.removeprefix("--") for flag in asked[::2]), asked[1::2], strict=True))
    assert identity(Config.from_mapping(settings).flat()) == identity(made["config"])


def test_a_page_of_360_cells_is_small(tmp_path: Path) -> None:
    text = page(runs(tmp_path, count=180, rounds=40))
    assert Elements(text).count("tr") > 180
    assert len(text.encode()) < 1_000_000


SCRIPT = """
<script>{
const failures = [];
const check = (what, is) => is || failures.push(what);
const rows = () => [...document.querySelectorAll(".sortable tbody tr")];
const column = (n) => rows().map((row) => row.children[n].textContent.trim());
const heads = [...document.querySelectorAll(".sortable th")];
const accuracy = heads.findIndex((head) => head.textContent.trim() === "accuracy");
heads[accuracy].querySelector("button").click();
const rising = column(accuracy).map(parseFloat);
check("sorted up", rising.every((value, n) => n === 0 || rising[n - 1] <= value));
check("says so", heads[accuracy].getAttribute("aria-sort") === "ascending");
heads[accuracy].querySelector("button").click();
check("sorted down", parseFloat(column(accuracy)[0]) === Math.max(...rising));
const density = heads.findIndex((head) => head.textContent.trim() === "density");
heads[density].querySelector("button").click();
check("empty cells last", column(density).at(-1) === "");
const button = [...document.querySelectorAll(".legend button")].find((one) => one.dataset.name === "eden");
button.click();
const lines = [...document.querySelectorAll(".line")];
check("hidden", lines.every((one) => one.classList.contains("off") === (one.dataset.name === "eden")));
button.click();
const chart = document.querySelector(".chart");
chart.focus();
for (const key of ["ArrowUp", "ArrowDown", "ArrowRight"]) chart.dispatchEvent(new KeyboardEvent("keydown", { key }));
const tip = document.getElementById("tip");
check("tip: " + tip.textContent, /^none \\u00b7 2 kB \\u00b7 41.50%$/.test(tip.textContent) && !tip.hidden);
chart.dispatchEvent(new PointerEvent("pointerleave"));
check("tip leaves", tip.hidden);
const at = chart.querySelector(".line polyline").getBoundingClientRect();
chart.dispatchEvent(new PointerEvent("pointermove", { clientX: at.left, clientY: at.bottom }));
check("pointer", !tip.hidden && tip.textContent.includes("1 kB"));
check("no sideways scrolling", document.documentElement.scrollWidth <= innerWidth);
document.title = failures.length ? failures.join("; ") : "all is well";
}</script>
"""


@pytest.mark.skipif(not BROWSER, reason="there is no Chromium here")
@pytest.mark.parametrize("width", [1300, 500])
def test_in_a_browser_the_page_sorts_hides_lines_and_tells_values_by_pointer_and_keys(
    tmp_path: Path, width: int
) -> None:
    page(runs(tmp_path, count=4))
    file = tmp_path / "driven.html"
    file.write_text((tmp_path / "report.html").read_text().replace("</html>", f"{SCRIPT}</html>"))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    flags += ["--enable-logging=stderr", f"--window-size={width},900", "--dump-dom", f"file://{file}"]
    done = subprocess.run([str(BROWSER), *flags], capture_output=True, text=True, timeout=60)
    assert re.search(r"<title>(.*)</title>", done.stdout)[1] == "all is well"  # type: ignore[index]
    assert "CONSOLE" not in done.stderr
