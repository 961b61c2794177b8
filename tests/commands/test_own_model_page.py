"""docs/own-model.md: its files and commands do what the page says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import sweep_runs

from vitbench import cli

PAGE = (Path(__file__).parents[2] / "docs" / "own-model.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```\w+ file=(\S+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.long
@pytest.mark.ray
def test_the_pages_commands_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the first file to a verdict, word by word as printed."""
    assert len(COMMANDS) == 5 and len(FILES) == 4
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)
    printed = ""
    for line in COMMANDS:
        _, command, *words = shlex.split(line)
        if words[0].startswith("results/"):
            words[0] = str(next(Path().glob(words[0])))
        if command == "sweep":
            code, printed = sweep_runs.sweep_here(*words)
        else:
            code = cli.main([command, *words])
            printed = capsys.readouterr().out
        assert code == 0, f"{line}\n{printed}"
    (claim,) = json.loads(printed)["claims"]
    assert claim["id"] == "helped" and claim["n"] == 6
    assert claim["verdict"] in ("supported", "refuted", "undecided")
    assert claim["low"] < claim["effect"] < claim["high"]
