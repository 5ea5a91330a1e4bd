"""Makes all pictures of docs/gallery.md anew, from runs of a few minutes: `python docs/gallery.py`.

What a command prints becomes an SVG of a terminal. Pages in a browser need Chromium; without one, their pictures stay
as they are.
"""

import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "gallery"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
JOB = "--distribution dirichlet --beta 0.1 --rounds 20 --eval-every 2"
ALL = "--distribution dirichlet --beta 0.5 --rounds 20 --density 0.01 --compressor topk,randomk,stc,sparseloco"
WIDEST = 1300
COMPRESSORS = """
base: {distribution: dirichlet, beta: 0.5, rounds: 20, eval-every: 1, uplink-mbps: "lognormal:5:1", latency-ms: 50}
grid: {seed: [0, 1, 2]}
runs:
  - {compressor: none, values: f32}
  - {compressor: topk, density: [0.01, 0.06]}
  - {compressor: randomk, density: 0.0925, values: eden, unbiased: true}
"""
TOPOLOGIES = """
base: {distribution: dirichlet, beta: 0.5, rounds: 20, eval-every: 1, sparsity: 0.8, readjustment-interval: 4}
grid: {seed: [0]}
runs:
  - {topology: [dense, static, feddst]}
"""


def main_py(arguments: str, work: Path) -> str:
    """What a command prints, with paths as they are from the folder that it runs in."""
    print(f"python main.py {arguments}", flush=True)
    command = [sys.executable, str(ROOT / "main.py"), *shlex.split(arguments)]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.replace(f"{work.resolve()}/", "")


def keep(source: Path, name: str) -> None:
    """Save a picture in few bytes: no wider than ``WIDEST``, of a palette of colours."""
    image = Image.open(source).convert("RGB")
    image.thumbnail((WIDEST, 10 * WIDEST), Image.Resampling.LANCZOS)
    image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(PICTURES / name, optimize=True)


def terminal(arguments: str, printed: str, name: str, last: int) -> None:
    """Save a command and the last lines that it printed as a picture of a terminal."""
    printed = re.sub(r"runs/\d{8}-\d{6}-[\w.-]*", "runs/A", printed)
    lines = [line.rstrip() for line in printed.rstrip().splitlines()]
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=88, file=nowhere)
        console.print(Text("\n".join(lines[-last:])))
        svg = console.export_svg(title=f"python main.py {arguments}")
    (PICTURES / name).write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S))  # it would load from a network


def screenshot(address: str, name: str, work: Path, height: int) -> None:
    """Save a page as a browser shows it."""
    if not BROWSER:
        print(f"without a browser, {name} stays as it is", file=sys.stderr)
        return
    made = work / name
    flags = f"--headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir={work}/browser"
    size = f"--window-size={WIDEST},{height} --virtual-time-budget=40000 --screenshot={made}"
    subprocess.run([BROWSER, *shlex.split(flags), *shlex.split(size), address], capture_output=True, timeout=120)
    keep(made, name)


def tensorboard(folder: Path, work: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(60):
            try:
                urllib.request.urlopen(f"http://localhost:{port}/data/plugins_listing").close()
                break
            except OSError:
                time.sleep(1)
        screenshot(f"http://localhost:{port}/#custom_scalars", "tensorboard.png", work, 900)
    finally:
        server.terminate()
        server.wait()


def newest(work: Path, pattern: str) -> Path:
    return max(work.glob(pattern), key=lambda path: path.stat().st_mtime)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "compressors.yaml").write_text(COMPRESSORS)
        (work / "topologies.yaml").write_text(TOPOLOGIES)

        terminal(JOB, main_py(JOB, work), "run.svg", last=16)
        run = newest(work, "runs/*-fashion*")
        keep(run / "partition.png", "partition.png")
        prune = f"prune --checkpoint {run.relative_to(work)}/model.pt --sparsity 0.5"
        terminal("prune --checkpoint runs/A/model.pt --sparsity 0.5", main_py(prune, work), "prune.svg", last=16)
        verify = f"verify {run.relative_to(work)} --rounds 3"
        terminal("verify runs/A", main_py(verify, work), "verify.svg", last=12)
        main_py("partition --dataset shakespeare-mini --distribution natural", work)
        keep(newest(work, "runs/*partition*/*.png"), "text-partition.png")

        main_py("sweep compressors.yaml", work)
        keep(newest(work, "runs/compressors/plot.png"), "sweep.png")
        tensorboard(work / "runs/compressors", work)
        main_py("report runs/compressors --full --x uplink --singles", work)
        report = newest(work, "runs/*-report")
        keep(report / "report.png", "report.png")
        keep(report / "comm.png", "comm.png")
        screenshot(f"file://{report}/report.html", "page.png", work, 1500)
        main_py(f"compare-all {ALL}", work)
        keep(newest(work, "runs/compare-all/plot.png"), "compare-all.png")
        main_py("sweep topologies.yaml", work)
        main_py("report runs/topologies --compare-sparse", work)
        keep(newest(work, "runs/*-report") / "sparse.png", "sparse.png")
        main_py("bench-compressors --density 0.01 --distribution dirichlet", work)
        keep(newest(work, "runs/*compressors*/compressors.png"), "bench-compressors.png")


if __name__ == "__main__":
    main()
