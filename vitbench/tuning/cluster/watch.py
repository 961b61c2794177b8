"""Notices that a local Ray has died: Tune would wait for it for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import ray

from vitbench.tuning.events import Round, StackEvent
from vitbench.tuning.ray_private import own_processes

_EVERY_S = 1.0
_PATIENCE_S = 20.0  # that the process has to end by itself, once Ray is dead
_AGENTS = (b"ray::RuntimeEnvAgent", b"ray::DashboardAgent")
_dead: str | None = None  # the process of the local Ray that is gone
_over = threading.Event()  # nobody needs to be patient any more


class RayDied(Exception):
    """A process of the local Ray is gone, and with it all that was training."""


class RayObserver:
    """Ends Tune's loop where the local Ray is dead."""

    def observe(self, event: StackEvent) -> None:
        """Raise RayDied in the next round."""
        if isinstance(event, Round) and _dead is not None:
            raise RayDied(_words(_dead))


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Watch the processes of the Ray that this process has started.

    Where one is gone, `RayObserver` ends the sweep; a main thread that waits for Ray in a way that
    nothing ends is ended with the process, code 1.
    """
    global _dead, _over
    _dead, _over = None, threading.Event()
    over = _over
    processes = {name: (pid, _started(pid)) for name, pid in own_processes().items()}

    def watch() -> None:
        global _dead
        while not over.wait(_EVERY_S):
            gone = [name for name, (pid, at) in processes.items() if _started(pid) != at]
            if gone and not ray.is_initialized():
                return  # this process has shut Ray down itself
            if gone:
                _dead = gone[0]
                break
        if _dead is not None and not over.wait(_PATIENCE_S):
            print(f"{_words(_dead)}; --resume goes on", file=sys.stderr, flush=True)
            for pid, at in processes.values():
                if _started(pid) == at:
                    os.kill(pid, signal.SIGKILL)
            os._exit(1)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        if _dead is None:  # else until what is left of Ray is shut down
            over.set()


def ended() -> None:
    """Ray is shut down: nothing is left to be patient with."""
    _over.set()


def end_orphans() -> list[int]:
    """End agents of Rays whose raylet is dead, which would listen for a minute; their ids."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            if not (entry / "cmdline").read_bytes().startswith(_AGENTS):
                continue
            if entry.stat().st_uid == os.getuid() and not _is_raylet(_parent(int(entry.name))):
                os.kill(int(entry.name), signal.SIGKILL)
                found.append(int(entry.name))
    return found


def _words(name: str) -> str:
    return f"the local Ray has died (its process {name} is gone); all that was reported is kept"


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent ..."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def _started(pid: int) -> str | None:
    """When a living process began, in the kernel's ticks; None where it is gone."""
    try:
        fields = _stat(pid)
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _is_raylet(pid: int) -> bool:
    return b"/raylet" in Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
