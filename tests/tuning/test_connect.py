"""Starting and joining Ray: what is asked of it."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
import ray

from vitbench.tuning.cluster import connect


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
