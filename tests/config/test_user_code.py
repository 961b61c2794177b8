"""Files of the user's: which belong to a builder, their hash, and the copy that workers import."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitbench import user_code
from vitbench.errors import UserError
from vitbench.user_code import NO_CODE, Code


def write(folder: Path, **files: str) -> Path:
    """Files by name, `__` for a folder."""
    user_code.write({f"{n.replace('__', '/')}.py": text for n, text in files.items()}, folder)
    return folder


def test_a_module_and_what_it_imports_from_its_folder_are_one_code(tmp_path: Path) -> None:
    """In functions too, packages with their relatives; not what nobody imports, nor torch."""
    folder = write(
        tmp_path,
        net="import torch\nfrom parts import layers\ndef build():\n    import late\n",
        parts__layers="from . import norm\nfrom .deep.inner import x\n",
        parts__norm="",
        parts__deep__inner="x = 1\n",
        late="",
        other="",
    )
    (tmp_path / "parts" / "__init__.py").write_text("")
    files, travels = user_code.trace("net:build", folder)
    assert travels and list(files) == [
        "late.py", "net.py", "parts/__init__.py", "parts/deep/inner.py", "parts/layers.py",
        "parts/norm.py",
    ]  # fmt: skip
    before = user_code.fingerprint(files)
    (folder / "other.py").write_text("changed = 1")
    assert user_code.fingerprint(user_code.trace("net:build", folder)[0]) == before
    (folder / "parts" / "norm.py").write_text("changed = 1")
    assert user_code.fingerprint(user_code.trace("net:build", folder)[0]) != before


def test_an_installed_module_is_hashed_and_stays_where_it_is(tmp_path: Path) -> None:
    """Of a package only what the module imports from its own folder."""
    files, travels = user_code.trace("vitbench.words:duration", tmp_path)
    assert not travels and set(files) == {"vitbench/words.py"}
    user_code.require("vitbench.words:duration", user_code.fingerprint(files))
    with pytest.raises(UserError, match="has another version"):
        user_code.require("vitbench.words:duration", "0" * 16)


def test_workers_import_what_the_sweep_was_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the folder while it holds the same; edited or elsewhere, from a copy of the files."""
    monkeypatch.setenv("VITBENCH_CACHE", str(tmp_path / "cache"))
    folder = write(
        tmp_path / "here", net="from help_net import x\n", help_net="def x(): return 1\n"
    )
    first = Code(user_code.trace("net:x", folder)[0], str(folder))
    first.use()
    assert user_code.load("net:x")() == 1
    write(folder, help_net="def x(): return 2\n")
    NO_CODE.use()
    first.use()
    assert user_code.load("net:x")() == 1
    second = Code(user_code.trace("net:x", folder)[0], str(folder))
    second.use()
    assert user_code.load("net:x")() == 2
    assert first.fingerprint != second.fingerprint
    NO_CODE.use()
    with pytest.raises(UserError, match="No module named 'net'"):
        user_code.load("net:x")


def test_a_damaged_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never is anything imported that is not the code that was sent."""
    monkeypatch.setenv("VITBENCH_CACHE", str(tmp_path))
    code = Code({"net.py": "x = 1\n"}, "/nowhere")
    place = tmp_path / "code" / code.fingerprint
    place.mkdir(parents=True)
    (place / "net.py").write_text("x = 2\n")
    with pytest.raises(OSError):
        code.use()
