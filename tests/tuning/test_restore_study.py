"""A search whose study is missing goes on from its table of suggestions, or not at all."""

from __future__ import annotations

import math
import shutil
import sqlite3
from pathlib import Path

import optuna
import pandas as pd
import pytest

from vitbench.config import Sweep, load_results_sweep
from vitbench.errors import UserError
from vitbench.plan.resume import restore_record
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.records.ledger import Ledger
from vitbench.records.types import EpochRow, Status, TrialOutcome
from vitbench.tuning.observers import planned_rows
from vitbench.tuning.search.restore import restore_study
from vitbench.tuning.search.study import StudySource

SHIPPED = Path(__file__).parents[2] / "analysis" / "data" / "mnist_arch"


def resumed(folder: Path, suggestions: int) -> StudySource:
    """What `--resume` asks for stacks, where the search may make so many suggestions."""
    sweep = load_results_sweep(folder)
    search = sweep.search.model_copy(update={"suggestions": suggestions})
    sweep = sweep.model_copy(update={"search": search})
    restore_record(folder)
    history = History.read(folder / tables.LEDGER)
    restore_study(sweep, folder, history)
    return StudySource(sweep, folder / "study.db", channels=1, outputs=10, history=history)


def test_a_shipped_search_resumes_with_nothing_to_train(tmp_path: Path) -> None:
    """Its table of suggestions comes out as it was."""
    folder = tmp_path / "run"
    shutil.copytree(SHIPPED, folder)
    source = resumed(folder, 24)
    assert source.next() is None
    expected = pd.read_parquet(folder / "suggestions.parquet")
    pd.testing.assert_frame_equal(
        pd.DataFrame(source.suggestions()).astype(expected.dtypes), expected
    )


def test_more_suggestions_are_new_ones(tmp_path: Path) -> None:
    """A larger search trains what it has not trained, and no more of it than was asked for."""
    folder = tmp_path / "run"
    shutil.copytree(SHIPPED, folder)
    source = resumed(folder, 26)
    plans = [source.next(), source.next(), source.next()]
    assert plans[2] is None
    known = set(pd.read_parquet(folder / "trials.parquet")["stack_id"])
    assert not {plan.stack_id for plan in plans[:2] if plan is not None} & known


def test_without_any_record_of_suggestions_it_is_refused(tmp_path: Path) -> None:
    """Training the same suggestions again would be paid for twice."""
    folder = tmp_path / "run"
    shutil.copytree(SHIPPED, folder)
    (folder / "suggestions.parquet").unlink()
    with pytest.raises(UserError, match=r"neither study\.db nor suggestions\.parquet"):
        resumed(folder, 24)
    assert not (folder / "study.db").exists()


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a text": lambda path: path.write_text("no database\n"),
    "another study": lambda path: (
        optuna.create_study(storage=f"sqlite:///{path.with_name('other')}", study_name="other")
        and path.with_name("other").replace(path)
    ),
    "an empty database": lambda path: (path.unlink(), sqlite3.connect(path).execute("VACUUM")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


SEARCH = {
    "name": "s",
    "dataset": {"name": "digits"},
    "model": {"width": 8},
    "train": {"epochs": 3, "train_images": 100},
    "search": {
        "seed": 1,
        "space": {"lr": [0.1, 0.01, 0.001], "depth": {"low": 1, "high": 4}, "heads": [1, 2, 3]},
    },
}


def until(folder: Path, found: Sweep, ends: int) -> list[str]:
    """Draw, train by a formula, and write down what the recorder would; returns the stacks."""
    path = folder / tables.LEDGER
    told: list[str] = []
    with Ledger(path) as ledger:
        history = History.read(path)
        restore_study(found, folder, history, told.append)
        source = StudySource(
            found,
            folder / "study.db",
            channels=1,
            outputs=10,
            history=history,
            record=lambda drawn: ledger.append("suggestion", **drawn),
        )
        seen = []
        while (plan := source.next()) and len(seen) < ends:
            seen.append(plan.stack_id)
            ledger.extend("trial", planned_rows(plan, 1))
            loss = abs(math.log10(plan.members[0].train.lr) + 2) + plan.shared.model.depth
            ends_at = 1 if len(seen) % 3 == 2 else 3  # some are stopped early
            outcomes = []
            for member in plan.members:
                rows = [
                    EpochRow(trial_id=member.trial_id, epoch=n, epoch_s=0.1, train_loss=loss,
                             train_accuracy=0.5, val_loss=loss + 1 / n, test_loss=loss,
                             val_accuracy=0.5, test_accuracy=0.5)
                    for n in range(1, ends_at + 1)
                ]  # fmt: skip
                ledger.extend("epoch", [row.to_json() for row in rows])
                for row in rows:
                    source.reported(plan.stack_id, row.epoch, [row])
                outcomes.append(
                    TrialOutcome(
                        trial_id=member.trial_id,
                        stack_id=plan.stack_id,
                        status=Status.FINISHED if ends_at == 3 else Status.STOPPED,
                        best_val_loss=loss,
                    )
                )
            ledger.extend("outcome", [outcome.to_json() for outcome in outcomes])
            source.ended(plan.stack_id, outcomes)
    return seen


@pytest.mark.parametrize(
    ("sampler", "damage"),
    [("tpe", "gone"), ("qmc", "gone"), *(("random", name) for name in DAMAGES)],
)
def test_a_damaged_study_is_made_again_and_draws_the_same(
    damage: str, sampler: str, tmp_path: Path
) -> None:
    """Whatever happened to study.db: what follows is what an undisturbed search draws."""
    count = 12 if sampler == "tpe" else 5  # TPE's first ten are drawn at random
    settings = {"method": "optuna", "sampler": sampler, "suggestions": count}
    found = Sweep.model_validate({**SEARCH, "search": {**SEARCH["search"], **settings}})
    calm, struck = tmp_path / "calm", tmp_path / "struck"
    calm.mkdir()
    expected = until(calm, found, count)
    struck.mkdir()
    before = until(struck, found, 3)
    DAMAGES[damage](struck / "study.db") if damage in DAMAGES else (struck / "study.db").unlink()
    after = until(struck, found, count)
    # The one that was handed out last and not trained is handed out first.
    assert [*before, *after] == expected and len(set(expected)) == len(expected)
