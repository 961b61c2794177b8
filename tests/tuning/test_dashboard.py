"""The study of a finished search opens in optuna-dashboard."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import sweep_runs
from test_study import loss_of, outcome, source, sweep

pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is in the dev extra")


def fetch(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        return json.load(response)


def answers(port: int) -> bool:
    try:
        return bool(fetch(port, "/api/studies"))
    except OSError:
        return False


def test_the_dashboard_shows_every_suggestion(tmp_path: Path) -> None:
    """`optuna-dashboard sqlite:///.../study.db` serves the study with the right trials."""
    search = source(sweep(suggestions=4), tmp_path)
    while (plan := search.next()) is not None:
        search.ended(plan.stack_id, outcome(plan, "finished", loss_of(plan)))
    database = tmp_path / "study.db"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dashboard = Path(sys.executable).with_name("optuna-dashboard")
    command = [dashboard, f"sqlite:///{database}", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            sweep_runs.wait_until(lambda: answers(port), 30)
            (study,) = fetch(port, "/api/studies")["study_summaries"]
            trials = fetch(port, f"/api/studies/{study['study_id']}?after=0")["trials"]
        finally:
            server.terminate()
    assert study["study_name"] == "s"
    trained = [t for t in trials if "reason" not in {a["key"] for a in t["user_attrs"]}]
    assert len(trained) == 4
    assert {trial["state"] for trial in trained} == {"Complete"}
