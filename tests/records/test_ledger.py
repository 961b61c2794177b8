"""The ledger keeps every whole line, whatever happens to the driver."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from vitbench.errors import UserError
from vitbench.records import ledger
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
