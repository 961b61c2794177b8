"""The repository as a stranger meets it: what the README, the Makefile and the metadata promise."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vitbench import __version__, cli
from vitbench.config import Model, Train
from vitbench.plan import parameter_count

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tracked_files() -> list[Path]:
    """What a clone holds; every file of an unpacked source archive where git is absent."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        skipped = {".venv", ".git", "results", "__pycache__"}
        return [
            path
            for path in ROOT.rglob("*")
            if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)
        ]
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def pins() -> dict[str, str]:
    """constraints.txt as {canonical name: version}."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [line.split("#")[0].strip() for line in lines]
    return {
        canonicalize_name(name): version
        for name, version in (line.split("==") for line in found if line)
    }


def requirements() -> list[Requirement]:
    """Every requirement of pyproject.toml, extras included, other than on itself."""
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    every = [Requirement(line) for line in (*PROJECT["dependencies"], *extras)]
    return [r for r in every if canonicalize_name(r.name) != "vitbench"]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_constraints_pin_each_requirement_inside_its_range(requirement: Requirement) -> None:
    """`make` installs what pyproject.toml allows, and leaves no direct package to chance."""
    version = pins().get(canonicalize_name(requirement.name))
    assert version is not None, f"constraints.txt does not pin {requirement.name}"
    assert requirement.specifier.contains(version), f"{version} is outside {requirement.specifier}"


def test_torch_and_torchvision_are_a_pair() -> None:
    """torchvision 0.N is built against torch 2.(N - 15); another pair does not import."""
    torch, vision = (pins()[name].split(".") for name in ("torch", "torchvision"))
    assert torch[0] == "2" and vision[0] == "0"
    assert int(torch[1]) - int(vision[1]) == -15


def makefile_targets() -> set[str]:
    """Names that `make NAME` knows."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):", text, flags=re.MULTILINE))


def code_blocks(text: str) -> str:
    """The indented and fenced code of a Markdown page, one string."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", text)
    indented = re.findall(r"^ {4,}(.*)$", text, flags=re.MULTILINE)
    return "\n".join((*fenced, *inline, *indented))


PAGES = [path for path in tracked_files() if path.suffix == ".md" and "tests" not in path.parts]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_on_the_pages_exist(page: Path) -> None:
    """A `make X`, `vitbench X` or `python -m vitbench.X` that a page shows is really there."""
    code = code_blocks(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", code):
        assert target in makefile_targets(), f"{page.name} shows 'make {target}'"
    for command in re.findall(r"(?:^|[\s/])vitbench ([a-z]+)\b", code, flags=re.MULTILINE):
        assert command in cli.COMMANDS, f"{page.name} shows 'vitbench {command}'"
    for module in re.findall(r"python -m (vitbench[a-z_.]*)\b(?!X)", code):
        place = ROOT.joinpath(*module.split("."))
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), (
            f"{page.name} shows 'python -m {module}'"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_that_the_pages_point_to_exist(page: Path) -> None:
    """No dead link between the pages, and no sweep, figure or folder that is not in a clone."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)|src(?:set)?=\"([^\"]+)\"", text)
    for target in (one or other for one, other in links):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"
    for sweep in re.findall(r"\bsweeps/[\w.-]+\.ya?ml", text):
        assert (ROOT / sweep).is_file(), f"{page.name} names {sweep}"


def test_readme_opens_with_the_two_commands() -> None:
    """The first screen (30 lines) holds what a newcomer types."""
    first_screen = "\n".join(README.splitlines()[:30])
    assert "make demo" in first_screen
    assert "make test" in first_screen


def test_readme_lists_every_sweep() -> None:
    """A sweep that the README does not name would not be found."""
    shipped = sorted(path.name for path in (ROOT / "sweeps").glob("*.yaml"))
    assert shipped
    assert [name for name in shipped if f"sweeps/{name}" not in README] == []


def test_the_readmes_sweep_file_is_the_one_that_is_shipped() -> None:
    """The example on the page is sweeps/mnist_lr.yaml, without its comments."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    shipped = (ROOT / "sweeps" / "mnist_lr.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(block) == yaml.safe_load(shipped)


def test_ci_runs_the_readmes_test_command() -> None:
    """.ci/run ends in the README's `make test` with no test left out (`test-all`)."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").rstrip().splitlines()
    assert lines[-1] == "make test-all"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\ntest-all: TESTS :=\ntest-all: test " in makefile


def test_changelog_has_the_version() -> None:
    """The version at hand is described."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(__version__)}\b", changelog, flags=re.MULTILINE)


def test_nothing_names_the_machine_it_was_built_on() -> None:
    """No absolute path of a build machine and no package index host in any tracked file."""
    # Written in pieces, so that this file does not find itself.
    forbidden = re.compile(
        r"/work/" + r"(?:main|shared)|\.\./" + r"shared/|/opt/" + r"(?:wheels|pypi)|/tmp/"
        r"contract|/root/\." + r"pyenv|files\.python" + r"hosted\.org|download\.py" + r"torch\.org"
    )
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a table
        for number, line in enumerate(text.splitlines(), 1):
            if match := forbidden.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert found == []


def test_the_reference_pages_are_current() -> None:
    """docs/sweep-file.md and docs/results.md are what the code declares: run `make docs`."""
    make_reference = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))
    for name, text in make_reference["pages"]().items():
        kept = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert kept == text, f"docs/{name} is out of date: make docs"


@pytest.mark.parametrize("name", ["sweep-file.md", "results.md"])
def test_every_key_and_column_has_a_meaning(name: str) -> None:
    """No row of the reference ends in an empty cell; types are those that a person writes."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert re.findall(r"^\| .*\| *\|$", text, flags=re.MULTILINE) == []
    assert not re.search(r"true/false or whole number|mapping to", text)


def test_nothing_large_is_tracked() -> None:
    """Data sets, checkpoints and environments stay out of git."""
    large = [f"{p.relative_to(ROOT)}" for p in tracked_files() if p.stat().st_size > 1_500_000]
    assert large == []


def sweep_files() -> list[Path]:
    """Every sweep file that is shipped, in subfolders too."""
    return sorted((ROOT / "sweeps").rglob("*.yaml"))


def test_there_are_sweeps() -> None:
    """The cases below do not pass by finding nothing."""
    assert (ROOT / "sweeps" / "mnist_lr.yaml") in sweep_files()


@pytest.mark.parametrize("scale", ["laptop", "paper"])
@pytest.mark.parametrize("path", sweep_files(), ids=lambda p: p.name)
def test_every_sweep_loads_at_both_scales(path: Path, scale: str) -> None:
    """Shipped sweeps are valid, name their schema for editors, and expand to trials."""
    from vitbench.config import load_sweep
    from vitbench.plan import trials as plan

    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=sweep.schema.json"
    sweep = load_sweep(path, scale=scale)
    assert sweep.name == path.stem
    if sweep.search.method == "grid":
        assert plan.expand(sweep)


def test_the_console_script_is_installed_and_loads_nothing_heavy(tmp_path: Path) -> None:
    """`vitbench --help` is instant: it imports neither torch nor ray."""
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="vitbench")
    assert script.value == "vitbench.cli:as_program"
    code = (
        "import sys; from vitbench.cli import main; main(['--help']); "
        "print([m for m in ('torch', 'ray', 'pandas', 'pydantic') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert out.splitlines()[-1] == "[]"
    assert all(name in out for name in cli.COMMANDS)


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of the finger costs one line, exit code 2."""
    assert cli.main(["swep"]) == 2
    assert "did you mean 'sweep'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_a_main_that_takes_arguments(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`vitbench X --help` works for each X, and names itself."""
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert f"vitbench {name}" in capsys.readouterr().out


def test_what_the_paper_leaves_open_is_said() -> None:
    """docs/methods.md names the choices where the listing is silent, as they really are."""
    methods = " ".join((ROOT / "docs" / "methods.md").read_text(encoding="utf-8").split())
    assert "Where the listing is silent vitbench chose" in methods
    train, model = Train(), Model(depth=12, heads=4, width=192, mlp=768)
    plain = f"{train.batch_size}, {train.weight_decay:g}, {train.schedule}, {model.dropout:g}"
    assert f"| batch size, weight decay, schedule, dropout rate | {plain};" in methods
    count = f"{parameter_count(model, 32, 1, 10):,}"
    assert f"| LayerNorm before the classifier | yes: with it the model of Table 1 has {count}" in (
        methods
    )
    for choice in ("| activation of the MLP | GELU", "| pixels | normalised per channel"):
        assert choice in methods
