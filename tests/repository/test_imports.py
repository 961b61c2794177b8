"""The floors of the package: imports go down only, and heavy ones stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "vitbench"
# Lower floors first; a room may import its own floor and those below.
FLOORS = (
    {"errors", "rng", "hardware", "words"},
    {"config"},
    {"records"},
    {"plan"},
    {"data"},
    {"model"},
    {"training"},
    {"terminal"},
    {"storage"},
    {"analysis"},
    {"exports"},
    {"attention"},
    {"tuning"},
    {"forecast", "request"},
    {"sweep", "bench", "compare", "doctor", "export", "cli", "__main__"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, lazily or not, but for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "vitbench":
                yield from (f"vitbench.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    """An upward import ties rooms together that must be able to live alone."""
    own = FLOOR_OF[room_of(path)]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "vitbench" and len(parts) > 1 and not parts[1].startswith("__version"):
            assert FLOOR_OF[parts[1]] <= own, f"{path.name} imports {name}"


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("ray", {"tuning", "bench"}),
        ("optuna", {"tuning", "analysis"}),
        ("torchvision", {"data", "bench"}),
        (
            "torch",
            {
                "rng",
                "data",
                "model",
                "training",
                "storage",
                "tuning",
                "attention",
                "bench",
                "forecast",
            },
        ),
    ],
)
def test_heavy_packages_stay_in_their_rooms(package: str, rooms: set[str]) -> None:
    """Ray and torchvision must not creep into rooms that work without them."""
    users = {
        room_of(path)
        for path in MODULES
        if any(name.split(".")[0] == package for name in imports(path))
    }
    assert users, f"nothing imports {package}: this test looks at the wrong place"
    assert users - {"doctor"} <= rooms


@pytest.mark.parametrize(
    "module",
    [
        "vitbench",
        "vitbench.config",
        "vitbench.plan",
        "vitbench.records.tables",
        "vitbench.records.history",
        "vitbench.analysis.figures",
        "vitbench.cli",
    ],
)
def test_reading_results_needs_neither_torch_nor_ray(module: str) -> None:
    """Tables and figures are made on machines that train nothing; start-up stays quick."""
    code = f"import sys, {module}; print([m for m in ('torch', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
