"""Heavy packages stay where they belong; `lint-imports` checks how packages import each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "vitbench"
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports, lazily, for types alone, or as usual."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("ray", {"tuning", "bench"}),
        ("optuna", {"tuning", "analysis"}),
        ("torchvision", {"torchvision_import", "model", "bench"}),
        (
            "torch",
            {
                "rng",
                "torchvision_import",
                "data",
                "kernels",
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
def test_heavy_packages_stay_in_their_packages(package: str, allowed: set[str]) -> None:
    """Ray and torchvision must not creep into packages that work without them."""
    users = {
        package_of(path)
        for path in MODULES
        if any(name.split(".")[0] == package for name in imports(path))
    }
    assert users, f"nothing imports {package}: this test looks at the wrong place"
    assert users - {"commands"} <= allowed  # doctor looks at all of them


def test_reading_results_needs_neither_torch_nor_ray() -> None:
    """Tables and figures are made on machines that train nothing; start-up stays quick."""
    modules = [
        "vitbench",
        "vitbench.config",
        "vitbench.plan",
        "vitbench.cli",
        "vitbench.records.tables",
        "vitbench.records.history",
        "vitbench.sweep",  # bad input and --help do not wait for them either
        "vitbench.commands.forecast",
        "vitbench.analysis.figures",
        "vitbench.data.sets.faces.faces",  # for rates of labels that old results did not record
    ]
    code = (
        "import importlib, sys\n"
        f"for module in {modules}:\n"
        "    importlib.import_module(module)\n"
        "    if module == 'vitbench.commands.forecast':\n"
        "        assert 'jinja2' not in sys.modules, 'bad input waits for jinja2'\n"
        "    heavy = [m for m in ('torch', 'ray') if m in sys.modules]\n"
        "    assert not heavy, f'{module} imports {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_starting_a_sweep_imports_no_torch() -> None:
    """The workers import it while the driver is ready: it costs a sweep's start two seconds."""
    code = "import sys, vitbench.tuning.runner; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("command", ["analysis", "attention", "compare", "watch"])
def test_a_wrong_folder_is_refused_before_anything_heavy_is_loaded(
    command: str, tmp_path: Path
) -> None:
    """A slip in the path costs a fraction of a second, not the import of torch or matplotlib."""
    code = (
        "import sys; from vitbench.cli import main; "
        f"code = main([{command!r}, {str(tmp_path)!r}]); "
        "print(code, [m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "[]"]
    assert "holds no results of a sweep" in done.stderr
