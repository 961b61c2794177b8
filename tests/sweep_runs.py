"""Run sweeps: in processes of their own that can be killed, or in this one on a shared Ray."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import ipaddress
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

BUCKET_ENV = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
TIME_COLUMNS = ["images_per_s", "wall_s", "epoch_s"]
_MARK = "VITBENCH_TEST_RUN"
_shared = contextlib.ExitStack()  # holds the Ray of this process; ends with it


@dataclass
class SweepRun:
    """One `python -m vitbench.sweep`; every process of it carries a mark of its own."""

    arguments: list[str]
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __enter__(self) -> SweepRun:
        environment = {**os.environ, _MARK: self.mark, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vitbench.sweep", *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            # a test runner in the background would hand down an ignored SIGINT
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        for pid in self.processes():
            _kill(pid)

    def finish(self, timeout_s: float = 240) -> tuple[int, str]:
        """Wait for the end; returns exit code and everything printed."""
        output, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output

    def processes(self, starting_with: str = "") -> list[int]:
        """Living processes of this run, by the start of their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    marked = f"{_MARK}={self.mark}".encode() in (entry / "environ").read_bytes()
                    command = (entry / "cmdline").read_bytes().decode(errors="replace")
                except OSError:  # it has just ended
                    continue
                if marked and command.startswith(starting_with):
                    found.append(int(entry.name))
        return found

    def family(self) -> list[int]:
        """The driver and all that descends from it; Ray's agents lose their environment."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def strike(self, name: str, number: signal.Signals) -> int:
        """Send a signal to one process whose title or program has this name; how many it were."""
        for pid in self.family():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()
                if command.startswith(name) or command.endswith(f"/{name}"):
                    os.kill(pid, number)
                    return 1
        return 0

    def kill_driver(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer would; wait until nothing trains."""
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not self.processes("ray::ImplicitFunc"), 30)

    def kill_workers(self) -> int:
        """SIGKILL every process that trains; returns how many there were."""
        workers = self.processes("ray::ImplicitFunc")
        for pid in workers:
            _kill(pid)
        return len(workers)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 120) -> bool:
        """Wait for a condition, or for the end of the run; returns whether the condition holds."""
        wait_until(lambda: condition() or self.process.poll() is not None, timeout_s)
        return condition()


def sweep(*arguments: str, timeout_s: float = 240) -> tuple[int, str]:
    """Run a sweep to its end; returns exit code and output."""
    with SweepRun(list(arguments)) as run:
        return run.finish(timeout_s)


def start_local_ray() -> None:
    """Start Ray in this process as a sweep starts it, unless it runs; it ends with the process.

    If it runs, wait until the test before has given all its cores back: others plan with them.
    """
    import ray

    from vitbench.tuning.cluster import connect

    if not ray.is_initialized():
        # Workers inherit it: they may write into the bucket of a test. What `connect` sets stays.
        with pytest.MonkeyPatch.context() as patch:
            for name, value in BUCKET_ENV.items():
                patch.setenv(name, value)
            _shared.enter_context(connect.connect(None, verbose=False))
    cores = ray.cluster_resources()["CPU"]
    wait_until(lambda: ray.available_resources().get("CPU", 0.0) == cores, 60)


def actor_processes(class_name: str) -> list[int]:
    """Ids of the processes of this Ray that hold an actor of a class, perhaps a local one, now."""
    from vitbench.tuning.ray_private import actors

    return [a["Pid"] for a in actors("ALIVE") if a["ActorClassName"].split(".")[-1] == class_name]


@contextlib.contextmanager
def beside(condition: Callable[[], bool], act: Callable[[], None]) -> Iterator[None]:
    """Do something on a thread of its own while the block runs, as soon as a condition holds."""

    def wait() -> None:
        wait_until(condition, 120)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def stop_local_ray() -> None:
    """End the Ray of this process, if one was started."""
    _shared.close()


def sweep_here(*arguments: str, draws: bool = False) -> tuple[int, str]:
    """Run a sweep in this process, on its one Ray; returns exit code and output.

    Starting an interpreter and a Ray of its own takes longer than a tiny sweep; so do the figures
    of its report, which has none unless it `draws`.
    """
    from vitbench import sweep
    from vitbench.analysis import figures

    start_local_ray()
    output = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        use_this_ray(patch)
        if not draws:
            patch.setattr(figures, "draw_all", lambda opened: [])
        code = sweep.main(arguments)
    return code, output.getvalue()


def use_this_ray(patch: pytest.MonkeyPatch) -> None:
    """Let sweeps run on the Ray of this process instead of starting their own."""
    from vitbench.tuning.cluster import connect

    patch.setattr(connect, "connect", lambda *_, **__: contextlib.nullcontext())


@dataclass(frozen=True)
class Finished:
    """What a sweep that has ended left behind: its results folder and all that it printed."""

    folder: Path
    output: str


def installed_exports() -> list[str]:
    """The tools for which a sweep can be exported on this machine."""
    from vitbench.exports import tools

    return [n for n, package in tools.PACKAGES.items() if importlib.util.find_spec(package)]


def no_tracking_server(patch: pytest.MonkeyPatch) -> None:
    """Let tools write into the results folder, whatever this machine's user has set for them."""
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "TRACKIO_DIR"):
        patch.delenv(name, raising=False)
    patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # for reading; the export sets its own


def listens_on(pids: list[int]) -> Iterator[str]:
    """Addresses on which these processes wait for TCP connections."""
    sockets = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):  # closed since
                    sockets.add(os.readlink(link))
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                words = [fields[1][n : n + 8] for n in range(0, len(fields[1]) - 5, 8)]
                raw = b"".join(bytes.fromhex(word)[::-1] for word in words)
                mapped = getattr(ipaddress.ip_address(raw), "ipv4_mapped", None)
                yield str(mapped or ipaddress.ip_address(raw))


def results_of(out: Path) -> Path:
    """The one results folder under `out`."""
    (folder,) = [path.parent for path in out.glob("*/*/ledger.jsonl")]
    return folder


def ledger_lines(out: Path, kind: str) -> int:
    """Lines of a kind in the one ledger under `out`; 0 while there is none."""
    files = list(out.glob("*/*/ledger.jsonl"))
    return files[0].read_text().count(f'"kind": "{kind}"') if files else 0


def tables_of(folder: Path) -> Iterator[pd.DataFrame]:
    """Trials and epochs without the columns of time, in an order of their own."""
    for name, keys in (("trials", ["trial_id"]), ("epochs", ["trial_id", "epoch"])):
        frame = pd.read_parquet(folder / f"{name}.parquet")
        timeless = frame.drop(columns=[c for c in TIME_COLUMNS if c in frame])
        yield timeless.sort_values(keys).reset_index(drop=True)


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Poll a condition of another process, for which there is no event to wait on."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the condition did not come true within {timeout_s} s")
        time.sleep(0.05)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was faster
        os.kill(pid, signal.SIGKILL)
