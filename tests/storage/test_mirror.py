"""The copy of a run in its bucket: what arrives there, and a sweep that goes on from it."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import time
from pathlib import Path

import pytest
from sweep_runs import results_of, sweep_here, tables_of

from vitbench.errors import UserError
from vitbench.records import tables
from vitbench.storage.mirror import Mirror, fetch_latest
from vitbench.storage.place import Place


def test_the_mirror_copies_what_changed(bucket: Place, tmp_path: Path) -> None:
    """Ledger, figures and study arrive; checkpoints and Tune's own files do not."""
    for name in ("ledger.jsonl", "figures/a.png", "checkpoints/x/best.json", "ray/state", ".tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("first")
    study = sqlite3.connect(tmp_path / "study.db")
    study.execute("create table t (x)")
    study.commit()
    study.execute("insert into t values (1)")  # under way: not part of the copy
    with Mirror(tmp_path, bucket) as mirror:
        assert set(bucket.files()) == {"ledger.jsonl", "figures/a.png", "study.db"}
        with (tmp_path / "ledger.jsonl").open("a") as file:
            file.write(" second")
        mirror.copy()
    assert bucket.read("ledger.jsonl") == b"first second"
    (tmp_path / "copy.db").write_bytes(bucket.read("study.db"))
    assert sqlite3.connect(tmp_path / "copy.db").execute("select * from t").fetchall() == []
    study.close()


def test_a_bucket_that_is_not_there_ends_the_run_in_seconds(tmp_path: Path) -> None:
    """Nobody answers at the address: a message that says where, before anything trains."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    (tmp_path / "sweep.yaml").touch()
    query = f"?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
    started_s = time.monotonic()
    with pytest.raises(UserError, match="cannot write to s3://nowhere"):
        Mirror(tmp_path, Place(f"s3://nowhere/x{query}")).copy()
    assert time.monotonic() - started_s < 20


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_goes_on_from_its_bucket_on_another_machine(endpoint: str, tmp_path: Path) -> None:
    """The first driver's disk is gone; the second fetches the run and goes on from its states."""
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "name: moved\n"
        "dataset: {name: digits}\n"
        "model: {patch_grid: 2, depth: 1, heads: 2, width: 16}\n"
        "train: {epochs: 4, batch_size: 8, train_images: 40, val_images: 16, test_images: 16}\n"
        "search: {space: {lr: [0.001, 0.01]}}\n"
        "checkpoints: {every_s: 0}\n"
        "resources: {gpus: 0, cpus: 1.5}\n"
        "stack_size: 2\n"
    )
    storage = f"s3://results/{tmp_path.name}{endpoint}"
    first, second = tmp_path / "first", tmp_path / "second"
    to_bucket = [str(file), "--set", f"storage={storage}", "--out"]
    code, text = sweep_here(*to_bucket, str(first), "--set", "budget.epochs=3")
    assert code == 0 and "copied to: s3://" in text, text
    run = results_of(first).name
    shutil.rmtree(first)

    kept = Place(storage).child("moved").child(run)
    assert {"ledger.jsonl", "sweep.yaml", "trials.parquet"} <= set(kept.files())
    assert any(name.startswith("checkpoints/") for name in kept.files())
    fetch_latest(Place(storage), second, "moved")
    assert not (second / "moved" / run / "checkpoints").exists()

    code, text = sweep_here(*to_bucket, str(second), "--resume")
    assert code == 0 and "continued at" in text, text
    trials, epochs = tables_of(results_of(second))
    assert list(trials["status"]) == ["finished"] * 2
    assert list(epochs["epoch"]) == [1, 2, 3, 4] * 2
    lines = (results_of(second) / tables.LEDGER).read_text().count('"kind": "epoch"')
    assert lines == 2 * 4, "an epoch was trained twice"
