"""The ledger keeps every whole line, whatever happens to the driver."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow
import pytest

from vitbench.errors import UserError
from vitbench.records import ledger
from vitbench.records.history import History, Spent
from vitbench.records.ledger import Ledger


def lines(path: Path) -> list[dict[str, object]]:
    return [{k: v for k, v in line.items() if k != "time_s"} for line in ledger.read(path)]


def test_lines_come_back_in_order_and_in_value(tmp_path: Path) -> None:
    """Also the numbers that JSON does not have."""
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as out:
        out.append("run", argv=["a"])
        losses = {1: math.inf, 2: 0.1}
        out.extend(
            "epoch", [{"trial_id": "a", "epoch": n, "train_loss": losses[n]} for n in losses]
        )
    found = lines(path)
    assert [line["kind"] for line in found] == ["run", "epoch", "epoch"]
    assert found[1]["train_loss"] == math.inf
    assert found[2]["train_loss"] == 0.1


def test_a_torn_last_line_is_left_out_and_mended(tmp_path: Path) -> None:
    """A driver killed while writing loses that line alone; the next driver appends whole lines."""
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as out:
        out.append("run", number=1)
    with path.open("a") as file:
        file.write('{"kind": "epoch", "tr')
    assert lines(path) == [{"kind": "run", "number": 1}]
    with Ledger(path) as out:
        out.append("run", number=2)
    assert [line["number"] for line in lines(path)] == [1, 2]


def test_damage_before_the_last_line_is_named(tmp_path: Path) -> None:
    """Silently skipping a line in the middle would lose results."""
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"kind": "run", "time_s": 0}\nnonsense\n{"kind": "run", "time_s": 1}\n')
    with pytest.raises(UserError, match=r"ledger\.jsonl:2"):
        lines(path)


def test_two_drivers_cannot_write_one_ledger(tmp_path: Path) -> None:
    """A second --resume beside a running sweep is refused, not interleaved."""
    path = tmp_path / "ledger.jsonl"
    with Ledger(path), pytest.raises(UserError, match="another vitbench"), Ledger(path):
        pass


SCHEMA = pyarrow.schema(
    {
        "trial_id": pyarrow.string(),
        "epoch": pyarrow.int64(),
        "loss": pyarrow.float64(),
        "layers": pyarrow.list_(pyarrow.float64()),
    }
)


def test_lines_of_one_kind_are_read_as_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `read` gives, in the same order, over many blocks; numbers that are not finite, too."""
    path = tmp_path / "ledger.jsonl"
    monkeypatch.setattr(ledger, "_BYTES_AT_ONCE", 300)
    with ledger.Ledger(path) as out:
        out.append("run", argv=["a", "b"])
        for number in range(40):
            loss = (0.1 * number, math.nan, math.inf, number)[number % 4]
            more = {"layers": [0.5, math.nan]} if number % 3 == 0 else {}
            out.append("epoch", trial_id=f"t{number}", epoch=number, loss=loss, unknown=[1], **more)
            if number % 7 == 0:
                out.append("outcome", trial_id=f"t{number}", loss=3.0)
    with path.open("ab") as file:
        file.write(b'{"kind": "epoch", "tri')  # a driver is writing it now
    every = list(ledger.read(path))
    others, rows = ledger.Reader(path, "epoch", SCHEMA).read()
    assert others == [line for line in every if line["kind"] != "epoch"]
    expected = [line for line in every if line["kind"] == "epoch"]
    assert rows["trial_id"].to_pylist() == [line["trial_id"] for line in expected]
    assert str(rows["loss"].to_pylist()) == str([float(line["loss"]) for line in expected])
    assert str(rows["layers"].to_pylist()) == str([line.get("layers") for line in expected])


def test_a_damaged_line_is_named_when_read_as_columns(tmp_path: Path) -> None:
    """With its number, as when objects are read."""
    path = tmp_path / "ledger.jsonl"
    good = '{"kind": "epoch", "time_s": 1.0, "trial_id": "a", "epoch": 1, "loss": 1.0}\n'
    for bad in ('{"kind": "epoch", "trial_id": "a", \n', '{"kind": "epoch", "time_s": 1.0}\n'):
        path.write_text(good + bad + good)
        with pytest.raises(UserError, match=r"ledger.jsonl:2: is not a whole line"):
            ledger.Reader(path, "epoch", SCHEMA).read()
    path.write_text(good + good.replace("1.0}", '"much"}'))
    with pytest.raises(UserError, match="holds a value that is none of its column"):
        ledger.Reader(path, "epoch", SCHEMA).read()


def test_wall_clock_time_is_that_of_the_history(tmp_path: Path) -> None:
    """Of all runs, without the time between them, from a pass that parses almost nothing."""
    path = tmp_path / "ledger.jsonl"
    lines = [("run", 100), ("epoch", 130), ("event", 140), ("run", 1000), ("event", 1007.5)]
    path.write_text(
        "".join(
            json.dumps({"kind": kind, "time_s": time_s, "trial_id": "a", "epoch": 1}) + "\n"
            for kind, time_s in lines
        )
        + '{"kind": "ev'
    )
    spent = Spent(path)
    assert spent.seconds() == History.read(path).spent_s == 47.5
    with path.open("a") as file:  # the line that was being written, and another run
        file.write('ent", "time_s": 1010}\n')
        file.write("".join(f'{{"kind": "run", "time_s": {time_s}}}\n' for time_s in (2000, 3000)))
        file.write('{"kind": "event", "time_s": 3005}\n')
    assert spent.seconds() == Spent(path).seconds() == History.read(path).spent_s == 55
    path.write_text('{"kind": "run", "time_s": 1}\n{"kind": "event", "time_s": 3}\n')
    assert spent.seconds() == 2, "another file stands there"
