"""What nobody foresaw: one line, code 70, and the whole story in a file."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from vitbench import cli, net, sweep


def broken(*_: object) -> NoReturn:
    raise ZeroDivisionError("of all things")


@pytest.mark.parametrize("main", [cli.main, sweep.main])
def test_a_bug_is_one_line_and_a_log(
    main: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever way a command is started."""
    monkeypatch.delenv("VITBENCH_DEBUG")
    monkeypatch.setattr(sweep, "run", broken)
    words = ["s.yaml"] if main is sweep.main else ["sweep", "s.yaml"]
    assert main(words) == 70  # type: ignore[operator]
    (line,) = capsys.readouterr().err.splitlines()
    assert "ZeroDivisionError: of all things" in line
    (log,) = re.findall(r"the full log: (\S+)\)", line)
    assert "in broken" in Path(log).read_text()
    Path(log).unlink()


def test_whoever_debugs_sees_it_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """VITBENCH_DEBUG=1 is how the tests run, so that none of them hides a bug."""
    monkeypatch.setattr(sweep, "run", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["sweep", "s.yaml"])


def test_a_reader_that_leaves_early_is_no_mistake() -> None:
    """`vitbench --help | head -1`: no traceback, no log, whatever is still to be printed."""
    code = (
        "import sys; from vitbench.net import net\n"
        "@net\n"
        "def main():\n"
        "    print('x' * 1_000_000)\n"
        "    return 0\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join([sys.executable, '-c', code])} | head -c 1; "
         'exit "${PIPESTATUS[0]}"'],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (141, "x", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [["vitbench.sweep", "s.yaml"], ["vitbench", "sweep", "s.yaml"]])
def test_a_signal_among_the_imports_is_one_line(words: list[str], number: signal.Signals) -> None:
    """From the first line of ours on, seconds before a command can look at anything."""
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", *words], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "pydantic" in line:
                break
        process.send_signal(number)
        told = [line for line in process.stderr if not line.startswith("import time")]
    assert (process.returncode, told) == (130, ["interrupted before anything was started\n"])


def test_a_signal_waits_while_it_is_held() -> None:
    """What may not be cut short is whole, and then it is as if the signal came."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
    whole = False
    try:
        with pytest.raises(KeyboardInterrupt), net.held():
            os.kill(os.getpid(), signal.SIGINT)
            whole = True
        assert whole
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_any_command_that_is_interrupted_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM as well as Ctrl-C, without a traceback."""
    from vitbench.commands import ls

    monkeypatch.setattr(ls, "main", lambda words: os.kill(os.getpid(), signal.SIGTERM))
    assert cli.main(["ls"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
