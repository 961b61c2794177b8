"""Python files of the user's that a sweep calls: found, hashed, imported, sent to other machines.

A `mymodels:net` is looked for in the folder of the sweep file first, then in the environment. What
a module imports from its own folder belongs to it: by `import` statements, wherever they stand in
the file; files that are opened or imported by other means are not seen.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import re
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.torchvision_import import with_torchvision

_CACHE = "VITBENCH_CACHE"
_OURS = __name__.partition(".")[0]
SPEC = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"  # `module:function`


class UserCodeError(UserError):
    """The user's own code raised; the message ends with its traceback."""


@dataclass(frozen=True)
class Code:
    """Files of the user's: text by path below their folder; travels to workers as it is."""

    files: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""  # where they lie on the machine that the sweep was started on

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of the files' names and texts."""
        return fingerprint(self.files)

    def use(self) -> None:
        """Let `load` import these files in this process.

        They are imported from their folder where it is here and holds the same, else from a copy.
        """
        global _active
        if _active is not None and _active[0] == self:
            return
        for name in [*_modules_of(_active[0] if _active else Code()), *_modules_of(self)]:
            sys.modules.pop(name, None)
        if _active is not None and _active[1] in sys.path:
            sys.path.remove(_active[1])
        folder = self.folder if self._lies_in(Path(self.folder)) else str(self._copy())
        _active = self, folder
        if self.files:
            sys.path.insert(0, folder)
        importlib.invalidate_caches()

    def _lies_in(self, folder: Path) -> bool:
        try:
            return all((folder / n).read_text("utf-8") == text for n, text in self.files.items())
        except (OSError, UnicodeDecodeError):
            return False

    def _copy(self) -> Path:
        """A folder with these files, which processes of this machine share."""
        base = Path(os.environ.get(_CACHE) or Path.home() / ".cache" / "vitbench") / "code"
        place = base / self.fingerprint
        if not self._lies_in(place):
            base.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=base) as made:
                write(self.files, Path(made) / "code")
                try:
                    (Path(made) / "code").rename(place)
                except OSError:  # another process was faster
                    if not self._lies_in(place):
                        raise
        return place


NO_CODE = Code()
LIBRARIES = ("timm", "torchvision")  # `timm:NAME` names a model, not a function
_active: tuple[Code, str] | None = None  # and the folder that it is imported from


def require(spec: str, expected: str) -> None:
    """Refuse a module that is not the one that the sweep was started with.

    Raises:
        UserError: if its files, as this machine has them, have another hash.
    """
    files, _ = trace(spec, Path(_active[1]) if _active and _active[0].files else None)
    if fingerprint(files) != expected:
        raise UserError(
            f"{spec}: this machine ({socket.gethostname()}) has another version of it than the "
            f"one that the sweep was started on; install the same one on every node"
        )


def fingerprint(files: Mapping[str, str]) -> str:
    """First 16 hex digits of the SHA-256 of names and texts."""
    digest = hashlib.sha256()
    for name, text in sorted(files.items()):
        digest.update(f"{name}\0{len(text)}\0{text}\0".encode())
    return digest.hexdigest()[:16]


def write(files: Mapping[str, str], folder: Path) -> None:
    """Write files below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def read(folder: Path) -> dict[str, str]:
    """What `write` wrote."""
    found = sorted(folder.rglob("*.py"))
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in found}


def trace(spec: str, folder: Path | None) -> tuple[Mapping[str, str], bool]:
    """The files of `module:name`, by path, and whether they lie in the folder and must travel.

    Raises:
        UserError: if it has another form, there is no such module, or it is not valid Python.
    """
    if not re.fullmatch(SPEC, spec):
        raise UserError("is not `module:function`; write e.g. mymodels:net")
    module = spec.partition(":")[0]
    here = folder is not None and module.partition(".")[0] != _OURS  # run from its repository
    if folder is not None and here and _file_of(module, folder) is not None:
        return _reached(module, folder, folder), True
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.origin or not found.origin.endswith(".py"):
        raise UserError(
            f"there is no module {module} in {folder or 'the code sent along'} or in the "
            f"environment; check the name, or put {module.replace('.', '/')}.py there"
        )
    file = Path(found.origin)
    depth = module.count(".") + (file.name == "__init__.py")
    return _reached(module, file.parents[depth], file.parent), False


def _reached(module: str, root: Path, within: Path) -> dict[str, str]:
    """The files of a module and of what it imports, as far as they lie `within` a folder."""
    files: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file_of(name, root)
        if file is None or within not in file.parents:
            continue
        if root != within and name != module and module.startswith(f"{name}."):
            continue  # the package around an installed module is not its own
        key = file.relative_to(root).as_posix()
        if key in files:
            continue
        try:
            files[key] = file.read_text(encoding="utf-8")
            tree = ast.parse(files[key], filename=str(file))
        except SyntaxError as error:
            raise UserError(f"{file}:{error.lineno}: is not valid Python: {error.msg}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: cannot be read ({error})") from None
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for imported in _imported(tree, package):
            parts = imported.split(".")
            waiting += [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        waiting += [name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)]
    return dict(sorted(files.items()))


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that a file imports; of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, node.module or ""]).strip(".")
            yield base
            yield from (f"{base}.{alias.name}".strip(".") for alias in node.names)


def _file_of(module: str, root: Path) -> Path | None:
    """The file of a module below a folder."""
    place = root.joinpath(*module.split("."))
    for file in (place / "__init__.py", place.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def _modules_of(code: Code) -> list[str]:
    """The names under which files are imported."""
    names = (name.removesuffix(".py").removesuffix("/__init__") for name in code.files)
    return [name.replace("/", ".") for name in names]


def load(spec: str) -> Callable[..., Any]:
    """Import `module:function`, from the files in use or the environment.

    Raises:
        UserCodeError: with its traceback, if the module raises.
        UserError: if it has no such function.
    """
    module_name, _, name = spec.partition(":")
    with_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        module = with_torchvision(lambda: importlib.import_module(module_name))
    except (Exception, SystemExit) as error:  # whatever the user's module may throw
        raise raised(f"importing {module_name}", error) from error
    finally:
        sys.dont_write_bytecode = with_bytecode
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"{module_name} has no function {name}; check the name after the colon")
    found: Callable[..., Any] = function
    return found


def raised(doing: str, error: BaseException) -> UserCodeError:
    """The error for code of the user's that raised: one line, then its own traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).parent)
    last = max((n for n, f in enumerate(frames) if f.filename.startswith(ours)), default=-1)
    own = [f for f in frames[last + 1 :] if "importlib" not in f.filename] or list(frames[last:])
    text = "".join(
        [
            "Traceback (most recent call last):\n",
            *traceback.format_list(own),
            *traceback.format_exception_only(error),
        ]
    )
    return UserCodeError(f"the code that it names raised while {doing}:\n{text.rstrip()}")
