"""environment.json: what is needed to understand a run, and to run it again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitbench import __version__
from vitbench.errors import UserError, in_a_line
from vitbench.hardware import cpu_name
from vitbench.records.files import write_atomically

_PACKAGES = (
    *("torch", "torchvision", "timm", "ray", "optuna"),
    *("numpy", "pandas", "scikit-learn", "matplotlib"),
)


def environment() -> dict[str, Any]:
    """Versions, git commit and hardware, read without importing any of the packages."""
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return {
        "vitbench": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [name for file in gpus for name in _after_colon(file, "Model:")],
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write(results_dir: Path, *, argv: Sequence[str], **facts: Any) -> None:
    """Write environment.json with the command line and whatever else the caller knows."""
    content = {**environment(), "command": ["python", "-m", "vitbench.sweep", *argv], **facts}
    write_atomically(results_dir / "environment.json", json.dumps(content, indent=1) + "\n")


def read(results_dir: Path) -> dict[str, Any]:
    """What environment.json says; nothing where it is not there.

    Raises:
        UserError: if it is damaged.
    """
    file = results_dir / "environment.json"
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        content = in_a_line(error)
    if not isinstance(content, dict):
        why = f" ({content})" if isinstance(content, str) else ""
        raise UserError(
            f"{file}: is no JSON object{why}; it was edited or the disk is damaged; put it back, "
            f"or remove it to go on without scale, data set and command in the report"
        )
    return content


def add(results_dir: Path, **facts: Any) -> None:
    """Add facts to environment.json that are known only after the start."""
    content = {**read(results_dir), **facts}
    write_atomically(results_dir / "environment.json", json.dumps(content, indent=1) + "\n")


def claims_at_start(results_dir: Path, fingerprints: Sequence[str], *, resumed: bool) -> list[str]:
    """Claims that were stated before the first trial: those of now, or a resumed run's own.

    A resume adds none, so that a claim that was made with results in sight is known as such.
    """
    if not resumed:
        return list(fingerprints)
    return [str(fingerprint) for fingerprint in read(results_dir).get("claims") or ()]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git says of the source tree; None for an installed package or without git."""
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _after_colon(file: Path, key: str) -> list[str]:
    """What stands after the colon in the lines of a file of /proc that begin with the key."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(key)]
