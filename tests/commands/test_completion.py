"""Completion in shells: the script knows every command and option, and completes files."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from vitbench import cli
from vitbench.commands import completion


def completed(script: str, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    line = " ".join(f"'{word}'" for word in words)
    code = (
        f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
        "_shtab_vitbench; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    ran = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_choices_and_files(
    capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    """The printed script, in a real bash."""
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert set(cli.COMMANDS) <= set(completed(script, "vitbench", ""))
    assert "--dry-run" in completed(script, "vitbench", "sweep", "--d")
    assert completed(script, "vitbench", "bench", "prof") == ["profile"]
    assert f"{tmp_path}" in completed(script, "vitbench", "watch", f"{tmp_path}"[:-1])


def test_every_command_is_in_it() -> None:
    """A command without `build_parser` would fail here."""
    text = completion.whole_parser().format_help()
    assert all(name in text for name in cli.COMMANDS)
