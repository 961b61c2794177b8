"""What is left of a sweep: done, continued, retried, new; nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from vitbench.errors import UserError
from vitbench.plan.resume import find, remainder
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place


def history_of(plan: Any, *statuses: str | None) -> History:
    """A history in which the members of a stack ended so; None for no end."""
    lines: list[dict[str, Any]] = [{"kind": "run", "time_s": 0.0}]
    for member, status in zip(plan.members, statuses, strict=True):
        ids = {"trial_id": member.trial_id, "stack_id": plan.stack_id, "time_s": 1.0}
        lines.append({"kind": "trial", "config": {}, **ids})
        if status is not None:
            lines.append({"kind": "outcome", "status": status, **ids})
    return History.of(lines)


def state(folder: Path, trial_id: str, epoch: int) -> None:
    Place(str(folder)).write(f"checkpoints/{trial_id}/state-{epoch}.safetensors", b"")
    Place(str(folder)).write(f"checkpoints/{trial_id}/state-{epoch}.json", b"{}")


def epochs_in(folder: Path) -> Callable[[str], set[int]]:
    return Checkpoints(Place(str(folder))).state_epochs


def test_each_trial_is_accounted_for(tmp_path: Path) -> None:
    """Done ones are left out, the stack's others stay together; the sentence counts them all."""
    plan = tiny.plan(*({"lr": lr} for lr in (0.1, 0.2, 0.3, 0.4)))
    new = tiny.plan({"lr": 0.5}).members[0]
    history = history_of(plan, "finished", "interrupted", "crashed", None)
    for member in plan.members[1:]:
        state(tmp_path, member.trial_id, 7)
    left = remainder([*plan.members, new], history, epochs_in(tmp_path))
    assert [stack.members for stack in left.stacks] == [plan.members[1:]]
    assert left.new == [new]
    assert left.text() == "1 done, 2 continued at epoch 7, 1 retried, 1 new, 0 repeated"


def test_a_stack_goes_on_from_the_epoch_that_all_members_have(tmp_path: Path) -> None:
    """It was killed between two members' checkpoints."""
    plan = tiny.plan({"lr": 0.1}, {"lr": 0.2})
    first, second = (member.trial_id for member in plan.members)
    state(tmp_path, first, 4)
    state(tmp_path, first, 5)
    state(tmp_path, second, 4)
    left = remainder(plan.members, history_of(plan, None, None), epochs_in(tmp_path))
    assert left.continued == [4, 4]


def test_stopped_and_diverged_trials_are_not_trained_again(tmp_path: Path) -> None:
    """Their ends are results."""
    plan = tiny.plan({"lr": 0.1}, {"lr": 0.2})
    left = remainder(plan.members, history_of(plan, "stopped", "diverged"), epochs_in(tmp_path))
    assert (left.stacks, left.new, left.done) == ([], [], 2)


def test_find_takes_the_latest_or_the_one_named(tmp_path: Path) -> None:
    """Run folders sort by time; other folders are refused with the way out."""
    for stamp in ("20260101-000000-aaaa", "20260301-000000-bbbb"):
        run = tmp_path / "s" / stamp
        run.mkdir(parents=True)
        (run / tables.LEDGER).write_text('{"kind": "run"}\n')
    (tmp_path / "s" / "20260401-000000-cccc").mkdir()  # killed while it started
    (tmp_path / "s" / "20260401-000000-cccc" / tables.LEDGER).touch()
    assert find(tmp_path, "s", "latest").name == "20260301-000000-bbbb"
    named = tmp_path / "s" / "20260101-000000-aaaa"
    assert find(tmp_path, "s", str(named)) == named
    with pytest.raises(UserError, match="holds no ledger"):
        find(tmp_path, "s", str(tmp_path))
    with pytest.raises(UserError, match="there is no run of 'other'"):
        find(tmp_path, "other", "latest")
