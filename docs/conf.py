"""The site of these pages: `sphinx-build -W -c docs . build/site`. It opens from disk and loads nothing from a network.

The pages are the Markdown files of this repository as they are; `-W` fails on a link or an anchor that is not there.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
CHAPTERS = {
    "Use": ("settings", "gallery", "report", "telemetry", "python", "own", "language"),
    "Your own Flower app": ("flower-apps", "run-app", "deployment"),
    "Results": ("compressors", "topologies", "small-networks", "neighbours"),
    "Trust": ("reliability", "privacy"),
}

project = "fedsparse"
html_title = "fedsparse"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "docs/*.md"]
exclude_patterns = [".venv", "build", "runs", "data"]
myst_heading_anchors = 4
smartquotes = False  # because -- begins a flag
html_theme = "furo"
html_static_path = html_css_files = ["site.css"]
html_show_sphinx = html_show_copyright = html_copy_source = False


def _prepare(app: Sphinx, name: str, source: list[str]) -> None:
    """Name folders instead of linking to them, and list the pages below the README, where the sidebar finds them."""
    folder = (ROOT / name).parent

    def plain(link: re.Match[str]) -> str:
        return link[1] if (folder / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"\[([^]]+)\]\(([^)#:]+)\)", plain, source[0])
    if name == root_doc:
        for chapter, pages in CHAPTERS.items():
            listed = "\n".join(f"docs/{page}" for page in pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {chapter}\n\n{listed}\n```\n"
        source[0] += "\n```{toctree}\n:hidden:\n\nCONTRIBUTING\n```\n"


def _open_at_the_readme(app: Sphinx, error: Exception | None) -> None:
    (Path(app.outdir) / "index.html").write_text('<meta http-equiv="refresh" content="0; url=README.html">\n')


def setup(app: Sphinx) -> None:
    app.connect("source-read", _prepare)
    app.connect("build-finished", _open_at_the_readme)
