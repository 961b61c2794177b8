"""Starting and joining Ray: what is asked of it."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest
import ray
from sweep_runs import wait_until

from vitbench.errors import UserError
from vitbench.tuning.cluster import connect, watch


class StartedError(Exception):
    """Ray was asked to start."""


def test_a_local_sweep_joins_no_ray_that_happens_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address Ray would join the last one that was started here, and refuse options."""
    asked: dict[str, Any] = {}

    def init(**options: Any) -> NoReturn:
        asked.update(options)
        raise StartedError

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(connect, "listen_on_loopback", lambda wanted: None)
    monkeypatch.setattr(connect.watch, "end_orphans", lambda: None)
    monkeypatch.setattr(connect, "_keep_token_private", lambda: None)
    with pytest.raises(StartedError), connect.connect(None, verbose=True):
        pass
    assert asked["address"] == "local" and not asked["include_dashboard"]


def test_an_address_where_nobody_listens_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray itself would look for minutes, and is not asked."""
    monkeypatch.setattr(ray, "init", pytest.fail)
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(UserError, match=f"--address {address}: no Ray cluster answers there"),
            connect.connect(address, verbose=True),
        ):
            pass


@pytest.mark.parametrize("there", [False, True])
def test_the_token_is_readable_by_its_owner_alone(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is made where there is none; one that Ray has made readable to everybody is kept."""
    token = tmp_path / ".ray" / "auth_token"
    if there:
        token.parent.mkdir()
        token.write_text("of before")
        token.chmod(0o644)
    monkeypatch.setattr(connect, "_TOKEN", token)
    connect._keep_token_private()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert (token.read_text() == "of before") == there and len(token.read_text()) > 8


def test_agents_without_a_raylet_are_ended_and_others_left(tmp_path: Path) -> None:
    """A killed driver leaves them for a minute; a Ray that runs here keeps its own."""
    agent = 'exec -a "ray::RuntimeEnvAgent" sleep 60'
    raylet = tmp_path / "raylet"
    raylet.symlink_to("/bin/bash")
    with (
        subprocess.Popen(["bash", "-c", agent]) as orphan,
        subprocess.Popen([raylet, "-c", f"({agent}) & wait"]) as living,
    ):
        children = Path(f"/proc/{living.pid}/task/{living.pid}/children")
        title = lambda pid: Path(f"/proc/{pid}/cmdline").read_bytes()[:21]  # noqa: E731
        wait_until(lambda: title(orphan.pid) == b"ray::RuntimeEnvAgent\0", 10)
        wait_until(lambda: [*map(title, children.read_text().split())] == [title(orphan.pid)], 10)
        kept = int(children.read_text())
        try:
            ended = watch.end_orphans()
            assert orphan.pid in ended and kept not in ended
            assert orphan.wait(10) == -signal.SIGKILL and title(kept)
        finally:
            os.kill(kept, signal.SIGKILL)
