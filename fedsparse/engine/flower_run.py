"""`--engine flower`: the same apps by `flwr run`, on a SuperLink of this run's own.

The SuperLink gets its own port, and a temporary folder as its own FLWR_HOME. So it shares nothing with another run,
needs no network beyond this machine, and leaves nothing behind.
"""

import json
import math
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from fedsparse.config import Config
from fedsparse.engine import flower_end
from fedsparse.engine.peers import users_are_known
from fedsparse.engine.simulation_starts import NAME, SimulationStarts
from fedsparse.engine.sockets import socket_folder
from fedsparse.errors import ConfigError, RunFailed, reason
from fedsparse.telemetry.progress import WRITTEN

SCRIPTS = Path(sys.executable).parent
STARTUP_SECONDS = 60
RAY_SOCKET = "/ray/session_2026-01-01_12-00-00_123456_1234567/sockets/plasma_store"
"""The longest path of Ray's in its temporary folder."""
APP = """\
[project]
name = "fedsparse"
version = "0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "fedsparse"
[tool.flwr.app.components]
{components}
[tool.flwr.app.config]
{settings}"""
"""The pyproject.toml of a Flower app without code. PYTHONPATH leads to this process's own, wherever it is installed."""
PREFIX = "fedsparse-"


def run_flower(config: Config, serverapp: str, clientapp: str) -> Path:
    """Run the apps at these two ``module:attribute``s with these settings, whose paths are absolute; wait for the end.

    Returns:
        The run folder.

    Raises:
        ConfigError: the settings name a GPU by its number.
        RunFailed: the runtime did not start, or the run did not complete; with the reason from Flower's log.
    """
    if ":" in config.device:
        index = config.device.partition(":")[2]
        raise ConfigError(
            f"device = {config.device}: Ray numbers the GPUs of its clients itself; use --device cuda with "
            f"CUDA_VISIBLE_DEVICES={index} in the environment"
        )
    for door in _open_doors():
        print(f"open: {door}", file=sys.stderr)
    with superlink() as (home, environment):
        _write_app(app := home / "app", config, serverapp, clientapp)
        resources: dict[str, float] = {
            "num-supernodes": config.clients,
            "client-resources-num-cpus": 1,
            "client-resources-num-gpus": _gpu_share(config),
        }
        if "RAY_ADDRESS" not in os.environ:  # because an existing Ray cluster has its own number of CPUs
            resources["init-args-num-cpus"] = config.worker_count()
        log = flwr_run(app, environment, resources)
        written = [line.removeprefix(WRITTEN) for line in log if line.startswith(WRITTEN)]
        if not written:
            raise RunFailed("the run on Flower's runtime has ended, but its log does not name its folder")
        return Path(written[-1])


def flwr_run(
    app: Path, environment: Mapping[str, str], resources: Mapping[str, float], run_config: str = ""
) -> list[str]:
    """`flwr run` of a Flower app on the SuperLink of ``environment``; returns the lines of its log.

    Args:
        app: the app's folder.
        environment: as ``superlink`` yields it.
        resources: the simulation's configuration.
        run_config: as Flower's `--run-config` takes it.

    Raises:
        RunFailed: with the reason from Flower's log.
    """
    command = [
        str(SCRIPTS / "flwr"),
        *("run", str(app), "fedsparse", "--stream"),
        *(("--run-config", run_config) if run_config else ()),
        *("--federation-config", " ".join(f"{key}={value}" for key, value in resources.items())),
    ]
    starts = SimulationStarts(Path(environment["FLWR_HOME"]))
    log = _stream(command, environment, starts)
    # Because `flwr run` exits 0 even when the run has failed, this asks for the run's status.
    status = subprocess.run(
        [str(SCRIPTS / "flwr"), "list", "fedsparse", "--format", "json"],
        env=environment,
        capture_output=True,
        encoding="utf-8",
    ).stdout
    runs = json.loads(status).get("runs") if status.strip().startswith("{") else None
    if not runs or runs[0]["status"] != "finished:completed":
        why = starts.reason() if starts.are_too_many else reason("\n".join(log), otherwise="its log is above")
        raise RunFailed(f"the run on Flower's runtime failed: {why}")
    return log


def _write_app(app: Path, config: Config, serverapp: str, clientapp: str) -> None:
    settings = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in config.flat().items())
    components = f'serverapp = "{serverapp}"\nclientapp = "{clientapp}"'
    app.mkdir()
    (app / "pyproject.toml").write_text(APP.format(components=components, settings="".join(settings)), "utf-8")


def _gpu_share(config: Config) -> float:
    """The share of a GPU for each client; above 0 on a GPU, because Ray hides the GPU from a client with share 0."""
    wanted = config.device.startswith("cuda") or (config.device == "auto" and torch.cuda.is_available())
    share = torch.cuda.device_count() / config.worker_count() if wanted else 0.0
    return math.floor(1e4 * min(share, 1.0)) / 1e4  # rounded down, so that the last client fits


@contextmanager
def superlink() -> Iterator[tuple[Path, dict[str, str]]]:
    """Start a SuperLink in simulation mode; yield its folder, and the environment in which `flwr` finds it.

    Only this user can enter the folder, and so reach Ray's sockets. However this process ends, all processes of the run
    end, and the folder is removed.
    """
    place = os.environ.get("RAY_TMPDIR") or socket_folder(len(f"/{PREFIX}12345678{RAY_SOCKET}"))
    home = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    ending = subprocess.Popen(
        [sys.executable, "-I", flower_end.__file__, home], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert ending.stdin
    assert ending.stdout
    superlink = None
    try:
        ending.stdout.readline()  # it has begun
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment, log = _environment(home, port), home / "superlink.log"
        command = [sys.executable, "-m", "fedsparse.engine.guarded_superlink", "--insecure", "--simulation"]
        with log.open("w") as output:
            superlink = subprocess.Popen(
                [*command, "--port", str(port)], env=environment, cwd=home, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        _wait_until_ready(superlink, port, log)
        yield home, environment
    finally:
        ending.stdin.close()
        while ending.poll() is None:
            with suppress(KeyboardInterrupt):  # a second Ctrl-C has no effect here
                ending.wait()
        if superlink:
            superlink.terminate()  # for systems without /proc, where flower_end finds no process
            superlink.wait()


def _environment(home: Path, port: int) -> dict[str, str]:
    """The environment of all processes of a run. ``home`` is where Flower and Ray keep their files."""
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "fedsparse"\n\n[superlink.fedsparse]\naddress = "127.0.0.1:{port}"\ninsecure = true\n',
        encoding="utf-8",
    )
    starts = SimulationStarts(home)
    starts.note(SCRIPTS / NAME)
    environment = os.environ | {
        "PATH": os.pathsep.join([str(starts.folder), str(SCRIPTS), os.environ.get("PATH", "")]),
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",  # Flower's commands decorate what they say
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),  # where a user's own modules are found
    }
    if "RAY_ADDRESS" in os.environ:  # then Ray is not this run's own
        return environment
    return environment | {
        "RAY_TMPDIR": str(home),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # so that Ray hears 127.0.0.1 alone, on Linux too
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def _open_doors() -> Iterator[str]:
    """What stays open to others while the run goes on, a line each."""
    if not users_are_known():
        yield "this system does not tell who connects; every user of this machine can run code in this run's SuperLink"
    if "RAY_ADDRESS" in os.environ and os.environ.get("RAY_AUTH_MODE") != "token":
        yield "whoever reaches the ports of this Ray cluster can run code in it; RAY_AUTH_MODE=token closes them"


def _wait_until_ready(superlink: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while superlink.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    code = superlink.poll()
    why = (
        reason(log.read_text(encoding="utf-8", errors="replace"), code)
        if code is not None
        else f"no answer within {STARTUP_SECONDS} s"
    )
    raise RunFailed(f"Flower's SuperLink did not start: {why}")


def _stream(command: list[str], environment: Mapping[str, str], starts: SimulationStarts) -> list[str]:
    """Run a `flwr run`, print every line of its output as it comes, and return the lines."""
    lines = []
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as child:
        starts.end(child)
        assert child.stdout
        for line in child.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    return lines
