"""Imports between packages point down only, as the table of rooms says, and have no circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    "benchmarks main fedsparse.__main__ fedsparse.flower_server fedsparse.flower_client",
    "fedsparse.__init__",
    "fedsparse.python_door",
    "fedsparse.commands",
    "fedsparse.strategies fedsparse.clients fedsparse.flower fedsparse.preflight",
    "fedsparse.report fedsparse.provenance",
    "fedsparse.experiment",
    "fedsparse.training fedsparse.networks",
    "fedsparse.engine fedsparse.packing",
    "fedsparse.privacy fedsparse.distillation fedsparse.quantisation",
    "fedsparse.sparsity",
    "fedsparse.aggregation",
    "fedsparse.compression fedsparse.sampling",
    "fedsparse.telemetry",
    "fedsparse.config",
    "fedsparse.lowrank",
    "fedsparse.checkpoint fedsparse.tasks fedsparse.models fedsparse.network fedsparse.vector fedsparse.device "
    "fedsparse.data fedsparse.client_models",
    "fedsparse.plugins fedsparse.seeds",
    "fedsparse.files fedsparse.units",
    "fedsparse.catalogue fedsparse.errors",
    "fedsparse.partitions",
)
"""Rooms from the top floor down. Rooms of one floor do not import one another."""

LEVELS = {room: level for level, floor in enumerate(reversed(FLOORS)) for room in floor.split()}
OURS = ("main", "benchmarks", "fedsparse")
INSIDE = ("strategies", "clients", "partitions")
"""Folders beside fedsparse in a checkout, which are packages inside fedsparse."""

FLOWER = ("fedsparse.engine", "fedsparse.strategies", "fedsparse.clients", "fedsparse.flower", "benchmarks")
"""Rooms that may import flwr."""

SPLIT = (
    "fedsparse.data",
    "fedsparse.networks",
    "fedsparse.experiment",
    "fedsparse.commands",
    "fedsparse.strategies",
    "benchmarks",
)
"""Rooms that may import partitions."""


def modules() -> dict[str, Path]:
    files = [path for name in (*OURS, *INSIDE) for path in (ROOT / name).rglob("*.py")] + [ROOT / "main.py"]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    names = {path: f"fedsparse.{name}" if name.partition(".")[0] in INSIDE else name for path, name in names.items()}
    return {name.removesuffix(".__init__") if name != "fedsparse.__init__" else name: p for p, name in names.items()}


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere in it, except under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    annotations = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in annotations:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: imports are absolute, so that this test can read them"
            assert not node.level, f"{path}: imports are absolute, so that this test can read them"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str:
    if module == "fedsparse":
        return "fedsparse.__init__"
    known = modules()
    while module not in known and "." in module:
        module = module.rpartition(".")[0]
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "fedsparse" and len(parts) > 1 else parts[0]


def arrows() -> set[tuple[str, str]]:
    """Every import of the project between two rooms."""
    found = set()
    for module, path in modules().items():
        for imported in imports(path):
            if imported.partition(".")[0] in OURS:
                found.add((room_of(module), room_of(imported)))
    return {(a, b) for a, b in found if a != b}


def test_every_room_has_its_floor() -> None:
    assert {room_of(module) for module in modules()} == set(LEVELS)


def test_arrows_point_down_only() -> None:
    assert not [(a, b) for a, b in sorted(arrows()) if LEVELS[a] <= LEVELS[b]]


@pytest.mark.parametrize(("package", "allowed"), [("flwr", FLOWER), ("fedsparse.partitions", SPLIT)])
def test_flwr_and_partitions_are_imported_only_by_their_rooms(package: str, allowed: tuple[str, ...]) -> None:
    users = {
        room_of(module)
        for module, path in modules().items()
        if any(f"{imported}.".startswith(f"{package}.") for imported in imports(path))
    }
    assert users - {package} <= set(allowed)


def test_no_file_uses_a_name_that_only_a_checkout_has() -> None:
    for name, path in modules().items():
        assert not {imported.partition(".")[0] for imported in imports(path)} & set(INSIDE), name


def test_no_file_imports_itself_by_way_of_others() -> None:
    known = modules()
    graph = {
        module: {
            target
            for imported in imports(path)
            if (target := imported if imported in known else imported.rpartition(".")[0]) in known and target != module
        }
        for module, path in known.items()
    }
    finished, path = set(), []

    def visit(module: str) -> None:
        assert module not in path, f"a circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module in finished:
            return
        path.append(module)
        for target in sorted(graph[module]):
            visit(target)
        finished.add(path.pop())

    for module in graph:
        visit(module)


def test_no_two_files_share_a_name() -> None:
    names = [path.name for module, path in modules().items() if not module.startswith("benchmarks")]
    assert {name for name in names if names.count(name) > 1} <= {"__init__.py"}


def test_no_function_is_longer_than_forty_lines_without_its_docstring() -> None:
    long = []
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not module.startswith("benchmarks"):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                long += [f"{module}:{node.name} has {lines} lines"] * (lines > 40)
    assert not long
