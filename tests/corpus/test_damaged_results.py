"""Results folders that are damaged: rebuilt from what is whole, or refused in one message."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import result_folder

from vitbench import sweep
from vitbench.analysis import __main__ as analysis
from vitbench.analysis.report import report
from vitbench.commands import compare, ls
from vitbench.errors import UserError
from vitbench.records import tables
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place

SWEEP = result_folder.GRID
FILES = (
    "ledger.jsonl", "trials.parquet", "epochs.parquet", "sweep.yaml",
    "environment.json",
)  # fmt: skip


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _line(change: Callable[[str], str]) -> Callable[[Path], None]:
    """Change the line in the middle of a text file."""

    def damage(path: Path) -> None:
        if path.suffix in (".parquet", ".safetensors"):  # has no lines: the byte in its middle
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 0xFF
            path.write_bytes(bytes(content))
            return
        lines = path.read_text().splitlines(keepends=True)
        lines[len(lines) // 2] = change(lines[len(lines) // 2])
        path.write_text("".join(lines))

    return damage


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _as(content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(content)

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "gone": Path.unlink,
    "empty": _as(b""),
    "cut in half": _half,
    "two bytes short": lambda path: _as(path.read_bytes()[:-2])(path),
    "zeros": _as(b"\0" * 1000),
    "noise": _as(bytes(range(256)) * 8),
    "a picture": _as(b"\x89PNG\r\n\x1a\n" + b"\0" * 64),
    "a text": _as(b"hello\nworld\n"),
    "an empty list": _as(b"[]"),
    "an empty mapping": _as(b"{}\n"),
    "a number": _as(b"3\n"),
    "a page of HTML": _as(b"<html><body>404</body></html>"),
    "a folder": _folder,
    "twice": lambda path: _as(path.read_bytes() * 2)(path),
    "a garbled line": _line(lambda line: line[: len(line) // 2] + "\n"),
    "a line of something else": _line(lambda line: '{"kind": "epoch", "time_s": "x"}\n'),
    "a line with a wrong type": _line(lambda line: line.replace(": ", ': ["x"], "also": ', 1)),
}
ONLY_TABLES = (
    "trials.parquet",
    "epochs.parquet",
    "sweep.yaml",
    "environment.json",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended: `<out>/made/<run>`, with its sweep file beside."""
    out = tmp_path_factory.mktemp("whole")
    result_folder.make(out / "made" / "20260101-000000-aaaa")
    (out / "made.yaml").write_text(SWEEP)
    return out


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "analysis": lambda run: [str(run), "--json"],
    "ls": lambda run: [str(run.parent.parent), "--json"],
    "compare": lambda run: [str(run), str(run), "--out", str(run.parent.parent / "c.html")],
    "resume": lambda run: [
        str(run.parent.parent / "made.yaml"), "--out", str(run.parent.parent), "--resume", str(run),
        "--scale", "paper",
    ],
}  # fmt: skip
MAINS = {
    "analysis": analysis.main,
    "ls": ls.main,
    "compare": compare.main,
    "resume": sweep.main,
}


@pytest.fixture(autouse=True)
def _nothing_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """No training, maps or figures: what is read is judged, not what is drawn of it."""
    from vitbench.analysis.compare import page
    from vitbench.tuning import runner
    from vitbench.tuning.cluster import connect

    monkeypatch.setattr(runner, "run", lambda *_: runner.Ending())
    monkeypatch.setattr(sweep, "_export_attention", lambda *_: "")
    monkeypatch.setattr(connect, "connect", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(report, "draw_and_write_opened", lambda results: [results.folder / "r"])
    monkeypatch.setattr(page, "write", lambda made, out: out)


def survives(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Run a command on a damaged folder: it goes well, or is refused in one message."""
    before = content(run)
    started_s = time.process_time()
    code = MAINS[name](COMMANDS[name](run))
    took_s = time.process_time() - started_s
    shown = capsys.readouterr()
    assert code in (0, 2), shown.err
    assert "Traceback" not in shown.err and took_s < 10
    if code == 2:
        message = shown.err.strip()
        assert message and len(message.splitlines()) <= 40, message  # it may hold a diff
        assert str(run) in message or run.name in message, message
        assert content(run) == before, "a refused command has changed the results"
    elif name == "analysis":
        json.loads(shown.out)
    return code


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_rebuilt_or_named(
    file: str, damage: str, command: str, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the ledger whole, tables are rebuilt; else the message names what is wrong."""
    (run,) = (damaged / "made").iterdir()
    DAMAGES[damage](run / file)
    code = survives(command, run, capsys)
    in_the_way = damage == "a folder" and command == "resume"  # which must not be removed
    if file.endswith(".parquet") and command != "compare" and not in_the_way:
        assert code == 0, "the ledger is whole, so the tables can be rebuilt"


@pytest.mark.parametrize("command", ["analysis", "ls", "resume"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ONLY_TABLES)
def test_tables_alone_that_are_damaged(
    file: str, damage: str, command: str, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results that ship hold no ledger: a damaged table is named, nothing is made up."""
    (run,) = (damaged / "made").iterdir()
    (run / tables.LEDGER).unlink()
    DAMAGES[damage](run / file)
    survives(command, run, capsys)


@pytest.mark.parametrize("kind", ["safetensors", "json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_passed_over(damage: str, kind: str, tmp_path: Path) -> None:
    """A stack goes on from the state before it, or from the start; the state is named.

    Strange files beside it are left alone.
    """
    torch = pytest.importorskip("torch")
    checkpoints = Checkpoints(Place(str(tmp_path)))
    folder = tmp_path / "checkpoints" / "a"
    for epoch in (1, 2):
        checkpoints.save("a", f"state-{epoch}", {"x": torch.ones(500)}, {"images": "checksum"})
    for strange in ("notes.txt", "state-x.safetensors", "state-3.safetensors.old"):
        (folder / strange).write_text("mine")
    DAMAGES[damage](folder / f"state-2.{kind}")
    epoch = checkpoints.common_epoch(["a"])
    # The first is as earlier versions wrote it, the second keeps the checksum.
    if kind == "json" and damage in ("an empty mapping", "a line with a wrong type"):
        assert epoch == 2 and checkpoints.load_state("a", 2)[1]["images"] == "checksum"
        return
    assert epoch == 1 and checkpoints.load_state("a", 1)[1]["images"] == "checksum"
    a_file_is_there = kind == "json" or damage not in ("gone", "a folder")
    assert checkpoints.damaged("a") == ["checkpoints/a/state-2.safetensors"] * a_file_is_there
    checkpoints.keep_only(["a"], None)
    assert {p.name for p in folder.iterdir() if p.is_file()} >= {"notes.txt", "state-x.safetensors"}
    assert checkpoints.common_epoch(["a"]) == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused(damage: str, tmp_path: Path) -> None:
    """Attention and `load_model` name the file, whatever its bytes are."""
    torch = pytest.importorskip("torch")
    from vitbench.training.checkpoint import load_member

    Checkpoints(Place(str(tmp_path))).save("a", "best", {"x": torch.ones(500)}, {"shape": {}})
    file = tmp_path / "checkpoints" / "a" / "best.safetensors"
    DAMAGES[damage](file)
    with pytest.raises(UserError, match=r"best\.safetensors"):
        load_member(file)


SHAPES: dict[str, object] = {
    "none": None,
    "a list": [],
    "of another model": {"depth": 1},
    "a text": "vit",
    "unknown keys": {"depth": 1, "height": 2},
    "texts for numbers": {"depth": "a"},
    "a builder that is not there": {"build": "nowhere:net"},
}


@pytest.mark.parametrize("name", SHAPES)
def test_weights_whose_shape_says_nothing_are_refused(name: str, tmp_path: Path) -> None:
    """The tensors are whole, what is said of them is not."""
    torch = pytest.importorskip("torch")
    from vitbench.training.checkpoint import load_member

    info = {"shape": SHAPES[name]} if SHAPES[name] is not None else {}
    Checkpoints(Place(str(tmp_path))).save(
        "a", "best", {"x": torch.ones(5, dtype=torch.int8)}, info
    )
    with pytest.raises(UserError, match=r"best\.safetensors|nowhere"):
        load_member(tmp_path / "checkpoints" / "a" / "best.safetensors")


@pytest.mark.parametrize("left", ["", "sweep.yaml", "sweep.yaml environment.json"])
@pytest.mark.parametrize("option", ["latest", "named"])
def test_a_run_that_was_killed_while_it_started(
    option: str, left: str, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its record has no line: `--resume` takes the run before it, or says that there is none."""
    run = damaged / "made" / "20270101-000000-bbbb"
    shutil.copytree(damaged / "made" / "20260101-000000-aaaa", run)
    for path in run.iterdir():
        if path.name not in left.split():
            path.unlink()
    (run / tables.LEDGER).touch()
    (run / "environment.json").write_text("")
    resume = ["--resume", str(run)] if option == "named" else ["--resume"]
    words = [str(damaged / "made.yaml"), "--out", str(damaged), "--scale", "paper", *resume]
    assert sweep.main(words) == (2 if option == "named" else 0)
    shown = capsys.readouterr()
    assert option == "latest" or "holds no ledger.jsonl with a line" in shown.err
    assert (run / tables.LEDGER).read_text() == ""


OUTS: dict[str, Callable[[Path], None]] = {
    "another page": lambda path: path.write_text("<html></html>") and None,
    "a data file": lambda path: path.write_bytes(b"\0" * 5000) and None,
    "an empty file": Path.touch,
    "a link to a device": lambda path: path.symlink_to("/dev/null"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a FIFO": lambda path: os.mkfifo(path),
    "files of something else": lambda path: path.with_name("c_files").mkdir(),
}


@pytest.mark.parametrize("name", OUTS)
def test_a_comparison_replaces_nothing_but_its_own_page(name: str, tmp_path: Path) -> None:
    """Whatever stands in its place is named and stays."""
    from vitbench.analysis.compare.page import _require_own

    out = tmp_path / "c.html"
    OUTS[name](out)
    before = (
        sorted(p.name for p in tmp_path.iterdir()),
        content(tmp_path) if "FIFO" not in name else 0,
    )
    with pytest.raises(UserError, match=r"--out .*; (name another file|move)"):
        _require_own(out)
    assert before[0] == sorted(p.name for p in tmp_path.iterdir())
    own = tmp_path / "own.html"
    own.write_text('<html><meta name="generator" content="vitbench compare">')
    _require_own(own)
    _require_own(tmp_path / "new.html")
    with pytest.raises(UserError, match="--out"):
        _require_own(Path("/dev/null"))
