"""Sweep files and options that are wrong: one message each, code 2, and nothing is started."""

from __future__ import annotations

import copy
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from vitbench import sweep

BASE: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"name": "digits", "image_size": 8},
    "model": {"patch_grid": 2, "depth": 1, "heads": 2, "width": 8, "mlp": 8},
    "train": {"epochs": 2, "batch_size": 8, "train_images": 64, "val_images": 32},
    "search": {"space": {"lr": [0.01, 0.001]}},
}
NAN, INF = float("nan"), float("inf")
WHOLE = (0, -1, 1.5, "3", True, [1], {"a": 1}, NAN, 10**400, 10**12)  # where at least 1 is needed
COUNT = (-1, 1.5, "3", True, [1], {"a": 1}, NAN, INF, 10**12)  # where 0 is allowed
SHARE = (-0.1, 1.0, "0.1", True, [0.1], NAN, INF, 1e308)
POSITIVE = (0, -1, "1", True, [1], {"a": 1}, NAN, INF, 1e308)
TEXT = (3, 1.5, True, ["a"], {"a": 1})
CHOICE = ("nonsense", 3, True, ["a"], {"a": 1}, "")
FLAG = (3, "yes please", [True], {"a": 1}, 0.5)
SECTION = (3, "text", [1], True)

# Values that a key of the sweep file may not have.
BAD: dict[str, tuple[Any, ...]] = {
    "name": (*TEXT, "", "two words", "../up", "/abs", "a/b", "-x", "x" * 300, None),
    "description": (3, True, ["a"], {"a": 1}),
    "dataset": (*SECTION, None),
    "dataset.name": (*CHOICE, None),
    "dataset.offline": CHOICE,
    "dataset.image_size": (*WHOLE, 3, 513, None),
    "dataset.labels": ([], "Smiling", [3], [None], {"a": 1}, ["no such"], [""]),
    "dataset.split": CHOICE,
    "dataset.count": (*WHOLE, 99),
    "dataset.label_noise": (*SHARE, 0.5),
    "dataset.path": (*TEXT, ""),
    "dataset.channels": (0, 2, 4, "1", True, [1]),
    "dataset.damaged_share": SHARE,
    "model": SECTION,
    "model.patch_grid": (*WHOLE, 3, 9),
    "model.depth": WHOLE,
    "model.heads": (*WHOLE, 3, 16),
    "model.width": (*WHOLE, 7),
    "model.mlp": WHOLE,
    "model.dropout": SHARE,
    "model.init": CHOICE,
    "train": SECTION,
    "train.epochs": WHOLE,
    "train.batch_size": (*WHOLE, 65),
    "train.optimizer": CHOICE,
    "train.schedule": CHOICE,
    "train.warmup_epochs": (-1, "1", True, [1], NAN, INF),
    "train.momentum": SHARE,
    "train.clip_norm": POSITIVE,
    "train.precision": CHOICE,
    "train.patience": WHOLE,
    "train.matched": WHOLE,
    "train.train_images": (*WHOLE, 2000),
    "train.val_images": (*WHOLE, 2000),
    "train.test_images": (*WHOLE, 2000),
    "train.lr": POSITIVE,
    "train.weight_decay": (-1, "0", True, [0], NAN, INF, 1e308),
    "train.seed": (*COUNT, 2**64),
    "train.label": (*TEXT, "no such", ""),
    "search": SECTION,
    "search.method": CHOICE,
    "search.space": (3, "lr", ["lr"], True),
    "search.space.lr": (
        3,
        "a",
        [],
        [0],
        [-1],
        ["x"],
        [None],
        [True],
        [NAN],
        [INF],
        [[0.1]],
        [0.1, 0.1],
        {"low": 1},
        {"low": 0.1, "high": 0.2},
        [1e308, {"a": 1}],
    ),
    "search.space.seed": ([-1], [0.5], ["0"], [2**64], [0, 0], [True], 6),
    "search.space.depth": ([0], [1.5], ["deep"], [10**9], [None]),
    "search.space.heads": ([3], [16], [0]),
    "search.space.patch_grid": ([3], [0], [16]),
    "search.space.width": ([7], [10**12]),
    "search.space.epochs": ([0], [10**12]),
    "search.space.batch_size": ([0], [65], [10**12]),
    "search.space.optimizer": (["adam"], [3]),
    "search.space.label": (["no such"], [3]),
    "search.space.image_size": ([8], [3], [16]),  # all models of a sweep see the same images
    "search.space.train_images": ([2000], [0], [4]),
    "search.space.lrr": ([1],),
    "search.space.": ([1],),
    "search.sampler": CHOICE,
    "search.suggestions": WHOLE,
    "search.seed": (*COUNT, 2**64),
    "search.concurrency": WHOLE,
    "search.inner": (3, "a", ["a"], {"lr": []}, {"lr": [0.1]}, {"depth": [1]}, {"nothing": [1]}),
    "search.objectives": ([], "val_loss", ["loss"], [3], ["val_loss", "val_loss"]),
    "search.scheduler": (*CHOICE, "asha"),
    "search.grace_epochs": WHOLE,
    "search.reduction_factor": (*WHOLE, 1),
    "target_accuracy": (*SHARE, 0),
    "claims": (
        3,
        "a",
        {"a": 1},
        [3],
        [{}],
        [{"id": "a"}],
        [{"id": "a", "says": "b", "metric": "c"}],
    ),
    "stack_size": (*WHOLE, "many"),
    "compile": ("maybe", 3, [1]),
    "resources": SECTION,
    "resources.workers": WHOLE,
    "resources.cpus": (*POSITIVE, "some"),
    "resources.gpus": (-1, "some", True, [1], NAN, INF),
    "storage": (*TEXT, ""),
    "budget": SECTION,
    "budget.hours": POSITIVE,
    "budget.gpu_hours": POSITIVE,
    "budget.models": WHOLE,
    "budget.epochs": WHOLE,
    "checkpoints": SECTION,
    "checkpoints.every_s": (-1, "1", True, [1], NAN, INF),
    "checkpoints.keep": WHOLE,
    "evaluation": SECTION,
    "evaluation.fixed_train_images": COUNT,
    "evaluation.predictions": FLAG,
    "evaluation.layers": FLAG,
    "attention": SECTION,
    "attention.top": COUNT,
    "attention.images": WHOLE,
    "exports": ("mlflow", [3], ["excel"], {"a": 1}),
    "max_failures": COUNT,
    "stall_minutes": POSITIVE,
    "scales": (
        3,
        "a",
        [1],
        {"laptop": 3},
        {"laptop": {"train": {"epochs": 0}}},
        {"laptop": {"modell": {}}},
    ),
    # Keys that no section has, as YAML writes them and as hints must bear them.
    "max-failures": (3,),
    "train.batch-size": (3,),
    "int": (3,),
    "float": (3,),
    "model.int": (3,),
    "a.b": (3,),
    "[b]": (3,),
    "x" * 500: (3,),
    "extends": (3, ["a"], "none.yaml", "."),
}


def changed(key: str, value: Any) -> str:
    """The base with one value changed, as YAML."""
    tree = copy.deepcopy(BASE)
    *above, last = [key] if key in ("a.b", "[b]") or "." not in key else key.split(".")
    section = tree
    for part in above:
        section = section.setdefault(part, {})
    section[last] = value
    return yaml.safe_dump(tree, sort_keys=False)


VALUES = [
    pytest.param(changed(key, value), id=f"{key[:40]}={str(value)[:30]}"[:80])
    for key, values in BAD.items()
    for value in values
]
DEEP = "a: " * 1 + "[" * 500 + "]" * 500
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
TEXTS = {
    "empty": "",
    "only a comment": "# nothing\n",
    "a list": "- 1\n- 2\n",
    "a text": "hello\n",
    "a number": "3\n",
    "null": "null\n",
    "two documents": "name: a\n---\nname: b\n",
    "a tab": "name: a\n\tdataset: {name: digits}\n",
    "a colon too many": "name: a: b\n",
    "an open bracket": "name: [a\n",
    "an open quote": "name: 'a\n",
    "a key twice": "name: a\nname: b\n",
    "an unknown tag": "name: !!python/object:os.system a\n",
    "a tag that does not fit": "name: !!int abc\n",
    "a bad date": "name: 2026-13-45\n",
    "a date": "name: 2026-01-01\n",
    "an alias of nothing": "name: *a\n",
    "an anchor in a circle": "name: &a [*a]\n",
    "a list as a key": "[a, b]: 3\n",
    "a mapping as a key": "{a: b}: 3\n",
    "a merge of nothing": "<<: 3\n",
    "nested 500 deep": DEEP,
    "a billion laughs": BOMB,
    "a key without a value": "name:\n",
    "a control character": "name: a\x07b\n",
    "a null byte": "name: a\0b\n",
    "a byte order mark alone": "\ufeff",
    "5 MB of unknown keys": "".join(f"key{n}: {n}\n" for n in range(330_000)),
    "a scalar of 200 kB": f"name: {'x' * 200_000}\n",
    "100,000 seeds of 100 rates": yaml.safe_dump(
        {**BASE, "search": {"space": {"lr": [1e-6 * n for n in range(1, 101)],
                                      "weight_decay": [1e-6 * n for n in range(1, 101)],
                                      "seed": list(range(1000))}}}
    ),
}  # fmt: skip
OPTIONS = {
    "no such scale": ["--scale", "huge"],
    "a seed count of zero": ["--seeds", "0"],
    "a negative seed count": ["--seeds=-3"],
    "a billion seeds": ["--seeds", "1000000000"],
    "an override without a value": ["--set", "train.epochs"],
    "an override of nothing": ["--set", "=3"],
    "an override of an empty part": ["--set", "train..epochs=3"],
    "an override that is no YAML": ["--set", "train.epochs=[1"],
    "an override below a number": ["--set", "train.epochs.deep=3"],
    "an override of a section": ["--set", "train=3"],
    "an override of an axis": ["--set", "train.lr=0.1"],
    "an override of an unknown key": ["--set", "train.epoch=3"],
    "an override of an unknown section": ["--set", "trian.epochs=3"],
    "an override with a bomb": ["--set", "name=" + "x" * 5000],
    "an alias in an override": ["--set", "name=*a"],
    "more cores than there are": ["--set", "resources.cpus=1000"],
    "a negative seed": ["--set", "train.seed=-1"],
    "more memory than there is": ["--set", "model.width=65536", "--set", "model.depth=1000"],
    "more memory than there is for any suggestion": [
        "--set",
        "search.method=random",
        "--set",
        "search.suggestions=3",
        "--set",
        "model.width=65536",
        "--set",
        "model.depth=1000",
    ],
    "more images than there are": ["--set", "search.space.train_images=[64, 5000]"],
    "a resume of nothing": ["--resume"],
    "a resume of a folder that is not there": ["--resume", "nowhere"],
    "a resume of a file": ["--resume", __file__],
}


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Run a command that must be refused; returns its message."""
    monkeypatch.setattr(sweep, "dry_run", lambda *_, **__: None)  # judges nothing, and is slow
    monkeypatch.chdir(tmp_path)

    def run(content: str | bytes, *options: str) -> str:
        file = tmp_path / "bad.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        started_s = time.process_time()
        code = sweep.main(["bad.yaml", "--dry-run", *options])
        took_s = time.process_time() - started_s
        message = capsys.readouterr().err.strip()
        assert code == 2, message or "accepted"
        assert message and "Traceback" not in message
        lines = message.splitlines()
        assert len(lines) <= 12 and max(map(len, lines)) < 700, message[:2000]
        assert took_s < 10
        assert not (tmp_path / "results").exists()
        return message

    return run


@pytest.mark.parametrize("text", VALUES)
def test_a_bad_value_is_refused_with_its_line(text: str, refused: Any) -> None:
    """File, line, key, rule and fix."""
    assert "bad.yaml:" in refused(text)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_no_sweep_is_refused(name: str, refused: Any) -> None:
    """However it is broken, and however large."""
    refused(TEXTS[name])


def test_bytes_that_are_no_text_are_refused(refused: Any) -> None:
    """A picture or an archive named .yaml."""
    refused(b"\x89PNG\r\n\x1a\n\x00\xff\xfe")


@pytest.mark.parametrize("text", ["", "extends: odd.yaml\n"], ids=["itself", "extended"])
@pytest.mark.parametrize("kind", ["fifo", "device", "circle"])
def test_what_is_no_plain_file_is_not_read(
    kind: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A FIFO keeps its reader waiting, and a device may have no end."""
    odd, own = tmp_path / "odd.yaml", tmp_path / "own.yaml"
    match kind:
        case "fifo":
            os.mkfifo(odd)
        case "device":
            odd.symlink_to("/dev/zero")
        case "circle":
            odd.symlink_to(odd.name)
    own.write_text(text)
    assert sweep.main([str(own if text else odd), "--dry-run"]) == 2
    assert str(odd if not text else own) in capsys.readouterr().err


@pytest.mark.parametrize("keep", ["1000", "null"])
def test_what_the_disk_cannot_hold_is_refused(
    keep: str, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best and the last weights of each of 2,000 models."""
    usage = shutil.disk_usage("/")._replace(free=2 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    set_ = f"search.space.seed={[*range(1000)]}", f"checkpoints.keep={keep}"
    told = refused(yaml.safe_dump(BASE), "--set", set_[0], "--set", set_[1])
    assert "0.0 GiB free" in told and "--out" in told


@pytest.mark.parametrize("name", OPTIONS)
def test_a_bad_option_is_refused(name: str, refused: Any) -> None:
    """Options are judged as the file is."""
    refused(yaml.safe_dump(BASE, sort_keys=False), *OPTIONS[name])
