"""Results in a bucket, against an S3 server on loopback: objects, checkpoints, whole sweeps."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import torch
from moto.server import ThreadedMotoServer
from sweep_runs import results_of, sweep, tables_of

from vitbench.errors import UserError
from vitbench.records import tables
from vitbench.storage.bucket_store import BucketStore
from vitbench.storage.checkpoints import (
    Bucket,
    BucketCheckpoints,
    FolderCheckpoints,
    Mirror,
    fetch_latest,
    is_bucket,
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server with one bucket; the query that leads there."""
    with pytest.MonkeyPatch.context() as patch:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(key, "testing")
        made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        made.start()
        address, port = made.get_host_and_port()
        client = boto3.client(
            "s3", endpoint_url=f"http://{address}:{port}", region_name="us-east-1"
        )
        client.create_bucket(Bucket="results")
        yield f"?scheme=http&endpoint_override={address}:{port}&region=us-east-1"
        made.stop()


@pytest.fixture
def bucket(server: str, request: pytest.FixtureRequest) -> Bucket:
    """A folder of the bucket for one test."""
    return Bucket.parse(f"s3://results/{request.node.name}{server}")


def test_objects_come_back_and_go(bucket: Bucket) -> None:
    """What was written is read; a folder lists what is below it; removing twice is no error."""
    folder = bucket.child("a")
    folder.write("b.bin", b"\0\1")
    folder.child("deep").write("c", b"")
    assert folder.read("b.bin") == b"\0\1"
    assert folder.files() == {"b.bin": 2, "deep/c": 0}
    assert bucket.child("nowhere").files() == {}
    folder.remove(["b.bin", "b.bin", "never"])
    assert list(folder.files()) == ["deep/c"]


def test_addresses_that_cannot_work_are_refused() -> None:
    """An unknown scheme, and a password that every record would repeat; a path is no bucket."""
    assert is_bucket("s3://a/b") and not is_bucket("/mnt/results")
    with pytest.raises(UserError, match="s3://BUCKET"):
        Bucket.parse("ftp://host/x")
    with pytest.raises(UserError, match="AWS_SECRET_ACCESS_KEY"):
        Bucket.parse("s3://key:secret@bucket/x")


def test_checkpoints_in_a_bucket_work_as_in_a_folder(bucket: Bucket) -> None:
    """States are found by another process, the common epoch counts, and nothing stays on disk."""
    store = BucketStore(bucket)
    info = {"images": "checksum"}
    for trial_id, epochs in (("one", (1, 2)), ("two", (1,))):
        for epoch in epochs:
            store.save(trial_id, f"state-{epoch}", {"params": torch.full((3,), epoch)}, info)
    store.save("one", "best", {"params": torch.zeros(2)}, info)

    other = BucketStore(bucket)
    assert other.common_epoch(["one", "two"]) == 1
    assert other.common_epoch(["one", "two", "three"]) == 0
    tensors, read = other.load_state("one", 2)
    assert tensors["params"].tolist() == [2, 2, 2] and read["images"] == "checksum"
    assert [path for path in store.root.rglob("*") if path.is_file()] == []

    checkpoints = BucketCheckpoints(bucket)
    assert checkpoints.state_epochs("one") == {1, 2}
    store.keep_only(["one"], 2)
    assert checkpoints.state_epochs("one") == {2}
    store.keep_only(["one"], None)
    assert sorted(bucket.child("one").files()) == ["best.json", "best.safetensors"]
    checkpoints.remove("one")
    assert bucket.child("one").files() == {}


def test_the_mirror_copies_what_changed(bucket: Bucket, tmp_path: Path) -> None:
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
        Mirror(tmp_path, Bucket(f"s3://nowhere/x{query}")).copy()
    assert time.monotonic() - started_s < 20


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    """Otherwise it would make the folder on its own disk, and lose what it writes."""
    with pytest.raises(UserError, match=f"does not see {tmp_path}"):
        FolderCheckpoints(tmp_path / "checkpoints").store()
    (tmp_path / tables.LEDGER).touch()
    FolderCheckpoints(tmp_path / "checkpoints").store()


@pytest.mark.slow
def test_a_sweep_goes_on_from_its_bucket_on_another_machine(server: str, tmp_path: Path) -> None:
    """The first driver's disk is gone; the second fetches the run and goes on from its states."""
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "name: moved\n"
        "dataset: {name: digits}\n"
        "model: {patch_grid: 2, depth: 1, heads: 2, width: 16}\n"
        "train: {epochs: 4, batch_size: 8, train_images: 40, val_images: 16, test_images: 16}\n"
        "search: {space: {lr: [0.001, 0.01]}}\n"
        "checkpoints: {every_s: 0}\n"
        "resources: {gpus: 0}\n"
    )
    storage = f"s3://results/{tmp_path.name}{server}"
    first, second = tmp_path / "first", tmp_path / "second"
    to_bucket = [str(file), "--set", f"storage={storage}", "--out"]
    code, text = sweep(*to_bucket, str(first), "--set", "budget.epochs=3")
    assert code == 0 and "copied to: s3://" in text, text
    run = results_of(first).name
    shutil.rmtree(first)

    kept = Bucket(storage).child("moved").child(run)
    assert {"ledger.jsonl", "sweep.yaml", "trials.parquet"} <= set(kept.files())
    assert any(name.startswith("checkpoints/") for name in kept.files())
    fetch_latest(Bucket(storage), second, "moved")
    assert not (second / "moved" / run / "checkpoints").exists()

    code, text = sweep(*to_bucket, str(second), "--resume")
    assert code == 0 and "continued at" in text, text
    trials, epochs = tables_of(results_of(second))
    assert list(trials["status"]) == ["finished"] * 2
    assert list(epochs["epoch"]) == [1, 2, 3, 4] * 2
    lines = (results_of(second) / tables.LEDGER).read_text().count('"kind": "epoch"')
    assert lines == 2 * 4, "an epoch was trained twice"
