"""Every command that README and docs show: run, or read by the parser that would read it."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import result_folder

from vitbench import cli
from vitbench.commands.request import Request, settle

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md", "benchmarks/README.md")
    ),
    *sorted((ROOT / "docs").glob("*.md")),
]
# Not run here, and why. A program that no page shows any more has to leave this list.
NOT_RUN = {
    "pip": "installs from the registry",
    "python3": "makes .venv; the Makefile's own tests do",
    "source": "of the shell",
    "export": "of the shell",
    "aws": "needs an account",
    "kubectl": "needs Kubernetes",
    "squeue": "needs Slurm",
    "jupyter": "installed by hand; test_notebooks runs the notebooks",
    "optuna-dashboard": "serves until it is ended",
}
RUN = {"new", "ls", "completion"}  # and what prints JSON or LaTeX of results


@dataclass(frozen=True)
class Command:
    """One command of a page, without what it redirects to."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def commands_of(page: Path) -> Iterator[Command]:
    """The commands of a page's `sh` blocks in their order, those inside `sh -c '...'` too."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```", text, re.M | re.S):
        for words in commands_in(block):
            yield Command(str(page.relative_to(ROOT)), words)


def commands_in(script: str) -> Iterator[tuple[str, ...]]:
    """Simple commands: parted by lines, `;`, `&&`, `&` and `|`; comments and redirections gone."""
    plain = re.sub(r"(?m)(^|\s)#.*$", "", script.replace("\\\n", " "))
    lexer = shlex.shlex(plain, posix=True, punctuation_chars=";&|\n>")
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t", "", True
    words: list[str] = []
    redirected = False
    for token in [*lexer, "\n"]:
        if set(token) <= set(";&|\n"):
            yield from simple(words)
            words, redirected = [], False
        elif token == ">":
            redirected = True
        elif not redirected:
            words.append(token)


def simple(words: list[str]) -> Iterator[tuple[str, ...]]:
    """One command without assignments before it, and those that it hands to another shell."""
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    if words and words[0] not in ("cd", "for", "do", "done"):
        yield tuple(words)
    for word in words[1:]:
        if " " in word and re.search(r"vitbench[. /]", word):
            yield from commands_in(word)


ALL = [command for page in PAGES for command in commands_of(page)]


def name_of(command: Command) -> str:
    """The program, whatever folder it is called from; `python -m vitbench.X` is `vitbench`."""
    first = Path(command.words[0]).name
    return "vitbench" if first == "python" and command.words[1] == "-m" else first


def ours(command: Command) -> tuple[str, list[str]]:
    """A command of vitbench and its words."""
    words = list(command.words)
    if words[1] == "-m":
        module = words[2].removeprefix("vitbench").lstrip(".")
        words = ["vitbench", *([module] if module else []), *words[3:]]
    return words[1], words[2:]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder like a clone after some runs: sweeps, results, pictures, the files of the pages."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("sweeps", "benchmarks", "cluster"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("RESULTS", "OTHER", "results/did_it_help/1", "results/mnist_lr/RUN"):
        result_folder.make(folder / name)
    for name in ("results/mine/1", "results/mine/2"):
        facts = result_folder.make(folder / name) / "environment.json"
        facts.write_text(facts.read_text().replace('"laptop"', '"paper"'))  # of one scale
    for sweep in ("mnist_lr", "mnist_arch"):
        path = folder / "results" / sweep / "20260101-000000-abcd"
        result_folder.make(path)
    (folder / "photos").mkdir()
    own = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
    for name, text in re.findall(r"^```\w+ file=(\S+)\n(.*?)^```", own, re.M | re.S):
        (folder / name).write_text(text)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.mark.xdist_group("commands of the pages")  # one writes the file that the next one reads
@pytest.mark.parametrize("command", ALL, ids=str)
def test_a_command_of_the_pages(
    command: Command, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs, or its parser reads it and the files that it names are there, or it is listed."""
    name = name_of(command)
    if name == "vitbench":
        check_ours(*ours(command), capsys)
    elif name == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{command.words[1]}:", makefile, re.M)
    elif name == "ray":
        check_ray([*command.words[1:]])
    elif name == "sbatch":
        script, *words = command.words[1:]
        assert (ROOT / script).is_file()
        check_ours("sweep", words, capsys)  # the script hands them on
    else:
        assert name in NOT_RUN, f"{command}: add a check, or a reason not to have one"


def check_ours(name: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Run it, or settle the sweep it starts, or parse it."""
    words = [
        str(found)
        for word in words
        for found in (sorted(Path().glob(word)) if "*" in word else [word])
    ]
    assert name in cli.COMMANDS
    if name == "sweep":
        assert settle(Request.parse(words)).sweep.name
    elif (name in RUN and "~" not in str(words)) or {"--json", "--latex"} & {*words}:
        if name == "new":
            Path(f"{words[0]}.yaml").unlink(missing_ok=True)  # several pages may write it
        code = cli.main([name, *words])
        assert code == 0, capsys.readouterr().err
    else:
        parser = importlib.import_module(cli.COMMANDS[name][0]).build_parser()
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit):
            parser.parse_args(words)
        assert not said.getvalue()


def check_ray(words: list[str]) -> None:
    """Have Ray's own command line read the words; starts nothing."""
    import click
    from ray.scripts.scripts import cli as group

    command: click.Command = group
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"ray knows no {words[0]}"
        command, words = found, words[1:]
    command.make_context("ray", words)


def test_commands_stand_in_blocks_that_are_read() -> None:
    """The list above is of all commands: none stands in an indented block, none is read twice."""
    assert len(ALL) > 60
    program = r"(?:vitbench|python|\.venv/|make|pip|ray|sbatch|kubectl|optuna)"
    for page in PAGES:
        text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        assert not re.search(rf"^ {{4,}}{program}\b.*", text, re.M), page.name
    named = {name_of(command) for command in ALL}
    assert {*NOT_RUN} <= named, "programs that no page shows any more"


@pytest.mark.parametrize(
    "line",
    [
        "vitbench sweep sweeps/missing.yaml",
        "vitbench sweep sweeps/mnist_lr.yaml --sett a=1",
        "vitbench sweep sweeps/mnist_lr.yaml --set train.epoch=1",
        "vitbench swep x.yaml",
        "vitbench watch",
        "ray submitt x",
        "ray up cluster.yaml --no-such-option",
        "make demmo",
        "rm -rf x",
    ],
)
def test_a_wrong_command_is_noticed(
    line: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check above can fail, for each kind of command."""
    (words,) = commands_in(line)
    with pytest.raises((Exception, SystemExit)):
        test_a_command_of_the_pages(Command("here", words), place, capsys)


def test_commands_are_read_as_a_shell_reads_them() -> None:
    """Comments, lines that go on, quotes, redirections, commands in a row and inside `sh -c`."""
    script = (
        "a 'b c' # no\nX=1 d \\\n  e > f\ng && h &\nsh -c 'cd x && .venv/bin/vitbench ls\n  y'\n"
    )
    assert [*commands_in(script)] == [
        ("a", "b c"), ("d", "e"), ("g",), ("h",),
        ("sh", "-c", "cd x && .venv/bin/vitbench ls\n  y"), (".venv/bin/vitbench", "ls"), ("y",),
    ]  # fmt: skip
