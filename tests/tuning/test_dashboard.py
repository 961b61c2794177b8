"""A finished search opens in optuna-dashboard."""

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

pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is in the dev extra")

SEARCH = """
name: small
dataset: {name: digits, image_size: 8}
model: {depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 2, batch_size: 64, train_images: 200, val_images: 50, test_images: 50}
search:
  method: optuna
  suggestions: 4
  space: {lr: {low: 0.001, high: 0.1, log: true}, patch_grid: [1, 2, 4]}
  inner: {seed: [0, 1]}
resources: {cpus: 1.5}
"""


def fetch(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        return json.load(response)


def answers(port: int) -> bool:
    try:
        return bool(fetch(port, "/api/studies"))
    except OSError:
        return False


@pytest.mark.ray
def test_the_dashboard_shows_every_suggestion(tmp_path: Path) -> None:
    """`optuna-dashboard sqlite:///.../study.db` serves the study with the right trials."""
    file = tmp_path / "small.yaml"
    file.write_text(SEARCH)
    code, output = sweep_runs.sweep_here(str(file), "--out", str(tmp_path / "out"))
    assert code == 0, output
    database = sweep_runs.results_of(tmp_path / "out") / "study.db"
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
    assert study["study_name"] == "small"
    trained = [t for t in trials if "reason" not in {a["key"] for a in t["user_attrs"]}]
    assert len(trained) == 4
    assert {trial["state"] for trial in trained} == {"Complete"}
