"""Errors of command lines name the option that was probably meant."""

from __future__ import annotations

import pytest

from vitbench.bench.__main__ import build_parser as bench
from vitbench.commands.request import build_parser as sweep


def refused(capsys: pytest.CaptureFixture[str], parse: object, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(list(arguments))  # type: ignore[operator]
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_option_names_the_one_that_is_close(capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a subcommand, and with a value after `=`; what is close to none is only refused."""
    line = refused(capsys, sweep().parse_args, "a.yaml", "--sedes=6", "--dryrun")
    assert line.endswith("--sedes=6 --dryrun; did you mean '--seeds' and '--dry-run'?")
    line = refused(capsys, bench().parse_args, "train", "--membres", "3")
    assert line.endswith("did you mean '--members'?")
    line = refused(capsys, sweep().parse_args, "a.yaml", "--qqq")
    assert line.endswith("unrecognized arguments: --qqq")
