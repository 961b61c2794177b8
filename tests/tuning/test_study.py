"""The study: every suggestion told once, in the state that its end calls for."""

from __future__ import annotations

import math
import resource
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from vitbench.config import Sweep
from vitbench.plan import StackPlan
from vitbench.records.history import History
from vitbench.records.types import EpochRow, Status, TrialOutcome
from vitbench.tuning.search.study import StudySource


def sweep(**search: Any) -> Sweep:
    settings = {
        "method": "random",
        "suggestions": 6,
        "seed": 1,
        "space": {"lr": {"low": 1e-4, "high": 1.0, "log": True}, "heads": [1, 2, 4]},
        **search,
    }
    return Sweep.model_validate(
        {
            "name": "s",
            "dataset": {"name": "digits"},
            "model": {"width": 8},
            "train": {"epochs": 3, "train_images": 100},
            "search": settings,
        }
    )


def source(found: Sweep, folder: Path, history: History | None = None) -> StudySource:
    return StudySource(
        found, folder / "study.db", channels=1, outputs=10, history=history or History()
    )


def outcome(plan: StackPlan, status: str, loss: float | None) -> list[TrialOutcome]:
    """Outcomes as workers report them."""
    return [
        TrialOutcome(
            trial_id=member.trial_id,
            status=Status(status),
            best_val_loss=loss,
            best_val_accuracy=0.5,
        )
        for member in plan.members
    ]


def loss_of(plan: StackPlan) -> float:
    """A smooth function of the learning rate, best at 0.01."""
    return abs(math.log10(plan.members[0].train.lr) + 2)


def states(folder: Path) -> list[str]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder / 'study.db'}")
    return [trial.state.name for trial in study.trials]


@pytest.mark.parametrize("names", [["val_loss"], ["val_loss", "parameters"]])
def test_the_study_says_what_its_values_are(tmp_path: Path, names: list[str]) -> None:
    """Who opens study.db with Optuna's own tools sees names, not "value 0"; also after a resume."""
    for _ in range(2):
        source(sweep(method="optuna", objectives=names), tmp_path)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert study.metric_names == names


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("finished", "COMPLETE"),
        ("diverged", "COMPLETE"),
        ("stopped", "PRUNED"),
        ("crashed", "FAIL"),
        ("oom", "FAIL"),
        ("interrupted", "RUNNING"),
        ("budget", "RUNNING"),
        ("gave_up", "RUNNING"),
    ],
)
def test_each_end_has_its_state(tmp_path: Path, status: str, state: str) -> None:
    """The table of docs/search.md."""
    found = source(sweep(), tmp_path)
    plan = found.next()
    assert plan is not None
    found.ended(plan.stack_id, outcome(plan, status, None if status == "diverged" else 0.5))
    assert states(tmp_path) == [state]


def test_a_diverged_suggestion_is_finite_and_worst(tmp_path: Path) -> None:
    """NaN would leave the trial running for ever; a failure would not be seen by the sampler."""
    found = source(sweep(), tmp_path)
    good, bad = found.next(), found.next()
    assert good is not None and bad is not None
    found.ended(good.stack_id, outcome(good, "finished", 8.0))
    found.ended(bad.stack_id, outcome(bad, "diverged", None))
    values = [suggestion["val_loss"] for suggestion in found.suggestions()]
    assert values == [8.0, 8.0]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_resumed_search_draws_what_an_undisturbed_one_draws(tmp_path: Path, sampler: str) -> None:
    """A new process on the old study goes on with the next suggestion, not with the first."""
    method = {"method": "random"} if sampler == "random" else {"method": "optuna", "sampler": "tpe"}
    wanted = sweep(**method, suggestions=12)
    folders = [tmp_path / "calm", tmp_path / "broken"]
    drawn: list[list[str]] = []
    for folder in folders:
        folder.mkdir()
        ids: list[str] = []
        found = source(wanted, folder)
        while (plan := found.next()) is not None:
            ids.append(plan.stack_id)
            found.ended(plan.stack_id, outcome(plan, "finished", loss_of(plan)))
            if folder.name == "broken":
                found = source(wanted, folder)
        drawn.append(ids)
    assert len(drawn[0]) == 12
    assert drawn[0] == drawn[1]


def test_an_open_suggestion_goes_on_as_the_same_trial(tmp_path: Path) -> None:
    """A killed driver left it RUNNING; the resume trains it and adds no other for it."""
    first = source(sweep(), tmp_path)
    plan = first.next()
    assert plan is not None
    again = source(sweep(), tmp_path)
    resumed = again.next()
    assert resumed is not None and resumed.stack_id == plan.stack_id
    again.ended(plan.stack_id, outcome(plan, "finished", 0.5))
    assert states(tmp_path) == ["COMPLETE"]


def test_an_outcome_that_only_the_ledger_knows_is_told(tmp_path: Path) -> None:
    """The driver died after the ledger's line and before the study's."""
    plan = source(sweep(), tmp_path).next()
    assert plan is not None
    lines: list[dict[str, Any]] = [{"kind": "run", "time_s": 0.0}]
    for member, end in zip(plan.members, outcome(plan, "finished", 0.25), strict=True):
        config = member.model_dump(mode="json")
        ids = {"trial_id": member.trial_id, "stack_id": plan.stack_id, "time_s": 1.0}
        lines += [
            {"kind": "trial", "config": config, **ids},
            {"kind": "outcome", **ids, **end.to_json()},
        ]
    again = source(sweep(), tmp_path, History.of(lines))
    assert states(tmp_path) == ["COMPLETE"]
    assert again.suggestions()[0]["val_loss"] == 0.25


def test_combinations_that_cannot_be_built_are_never_trained(tmp_path: Path) -> None:
    """They are passed over, do not count, and say why."""
    space = {"heads": [3, 5, 8], "lr": {"low": 0.001, "high": 0.1, "log": True}}
    found = source(sweep(space=space), tmp_path)
    plans = [found.next() for _ in range(7)]
    assert plans[-1] is None
    assert all(plan is not None and plan.shared.model.heads == 8 for plan in plans[:6])
    reasons = {s["reason"] for s in found.suggestions() if s["state"] == "PRUNED"}
    assert reasons <= {"heads=3 does not divide width=8", "heads=5 does not divide width=8"}


def test_nothing_is_paid_for_twice(tmp_path: Path) -> None:
    """Three combinations and six wanted: each is trained once, repeats get the known value."""
    found = source(sweep(space={"heads": [1, 2, 4]}), tmp_path)
    trained = []
    while (plan := found.next()) is not None:
        trained.append(plan.shared.model.heads)
        found.ended(plan.stack_id, outcome(plan, "finished", float(plan.shared.model.heads)))
    assert sorted(trained) == [1, 2, 4]
    assert all(TrialState[state].is_finished() for state in states(tmp_path))


def test_the_last_combinations_of_a_finite_space_are_found(tmp_path: Path) -> None:
    """TPE goes back to what was good; a space of 12 is used up without hundreds of repetitions,
    and a resume in between takes what an undisturbed search takes.
    """
    space = {"lr": [10.0**-n for n in range(1, 5)], "heads": [1, 2, 4]}
    asked = sweep(method="optuna", suggestions=20, space=space)
    orders = []
    for folder, resumed in ((tmp_path / "whole", False), (tmp_path / "resumed", True)):
        folder.mkdir()
        history = History()
        found, trained = source(asked, folder), []
        while plan := found.next():
            trained.append(plan.stack_id)
            ends = outcome(plan, "finished", loss_of(plan))
            found.ended(plan.stack_id, ends)
            history.outcomes |= {one.trial_id: one for one in ends}
            history.stacks[plan.stack_id] = [one.trial_id for one in ends]
            if resumed and len(trained) in (6, 10, 11):
                found = source(asked, folder, history)
        orders.append(trained)
        assert len(set(trained)) == len(trained) == 12
        assert len(states(folder)) < 12 + 12 * 10
    assert orders[0] == orders[1]


def test_a_crashed_suggestion_is_tried_again_after_a_resume(tmp_path: Path) -> None:
    """The same point, once, as a new trial; the failed one keeps its state."""
    found = source(sweep(suggestions=1), tmp_path)
    plan = found.next()
    assert plan is not None
    found.ended(plan.stack_id, outcome(plan, "crashed", None))
    assert found.next() is None
    again = source(sweep(suggestions=1), tmp_path)
    retried = again.next()
    assert retried is not None and retried.stack_id == plan.stack_id
    again.ended(retried.stack_id, outcome(retried, "finished", 0.5))
    assert again.next() is None
    assert states(tmp_path) == ["FAIL", "COMPLETE"]


def test_the_pareto_front(tmp_path: Path) -> None:
    """Of two suggestions with equal cost the worse is beaten; cheaper and worse is not."""
    found = source(
        sweep(objectives=["val_loss", "parameters"], space={"depth": [1, 2], "heads": [1, 2]}),
        tmp_path,
    )
    losses = {(1, 1): 0.5, (1, 2): 0.6, (2, 1): 0.3, (2, 2): 0.7}
    while (plan := found.next()) is not None:
        loss = losses[plan.shared.model.depth, plan.shared.model.heads]
        found.ended(plan.stack_id, outcome(plan, "finished", loss))
    trained = [s for s in found.suggestions() if s["reason"] is None]
    front = {(s["depth"], s["heads"]) for s in trained if s["pareto"]}
    assert front == {(1, 1), (2, 1)}
    row = trained[0]
    assert list(row)[:4] == ["number", "state", "stack_id", "reason"]
    assert {"depth", "heads", "val_loss", "parameters"} < set(row) and list(row)[-1] == "pareto"


@pytest.mark.parametrize("objectives", [["val_loss"], ["val_loss", "parameters"]])
def test_the_front_is_what_no_other_beats_in_everything(
    tmp_path: Path, objectives: list[str]
) -> None:
    """By brute force over all pairs, with ties in one value and in all."""
    space = {"depth": [1, 2, 3], "heads": [1, 8]}
    found = source(sweep(objectives=objectives, space=space, suggestions=6), tmp_path)
    while (plan := found.next()) is not None:
        loss = [0.4, 0.2, 0.2][plan.shared.model.depth - 1] + 0.1 * (plan.shared.model.heads == 8)
        found.ended(plan.stack_id, outcome(plan, "finished", loss))
    ended = [s for s in found.suggestions() if s["state"] == "COMPLETE"]
    costs = [tuple(s[name] or 0.0 for name in objectives) for s in ended]
    assert len(ended) >= 6 and len(set(costs)) < len(costs)
    for suggestion, cost in zip(ended, costs, strict=True):
        beaten = any(
            other != cost and all(a <= b for a, b in zip(other, cost, strict=True))
            for other in costs
        )
        assert suggestion["pareto"] != beaten, suggestion


def test_an_objective_of_whole_stacks_is_not_looked_for_in_an_epoch(tmp_path: Path) -> None:
    """`lr_sensitivity` has a value only when the stack has ended; an epoch changes nothing."""
    found = source(sweep(objectives=["parameters"], suggestions=1), tmp_path)
    plan = found.next()
    assert plan is not None
    values = dict.fromkeys(("train_loss", "val_loss", "test_loss"), 0.25)
    values |= dict.fromkeys(("train_accuracy", "val_accuracy", "test_accuracy"), 0.5)
    row = EpochRow(trial_id=plan.members[0].trial_id, epoch=1, epoch_s=1.5, **values)
    found.reported(plan.stack_id, 1, [row])
    found.ended(plan.stack_id, outcome(plan, "finished", 0.5))
    (suggestion,) = found.suggestions()
    assert suggestion["state"] == "COMPLETE" and suggestion["parameters"] > 0


def test_a_search_over_models_draws_what_each_of_them_has(tmp_path: Path) -> None:
    """A suggestion names its model and that one's own settings; resumed, it draws the same."""
    found = Sweep.model_validate(
        {
            "name": "s",
            "dataset": {"name": "digits"},
            "models": {
                "vit": {"width": 8, "depth": 1},
                "net": {"build": "sample_models:resnet"},
            },
            "train": {"epochs": 3, "train_images": 100},
            "search": {
                "method": "optuna",
                "suggestions": 8,
                "space": {
                    "model": ["vit", "net"],
                    "lr": {"low": 1e-4, "high": 1.0, "log": True},
                    "vit.heads": [1, 2, 4],
                    "net.args.width": {"low": 4, "high": 8, "step": 2},
                },
            },
        }
    )
    asked = source(found, tmp_path)
    drawn = []
    while plan := asked.next():
        drawn.append(plan.shared.model)
        asked.ended(plan.stack_id, outcome(plan, "finished", loss_of(plan)))
    assert len(drawn) == 8 and {model.name for model in drawn} == {"vit", "net"}
    for model, row in zip(drawn, asked.suggestions(), strict=True):
        assert row["model"] == model.name
        if model.name == "vit":
            assert model.heads == row["vit.heads"] and "net.args.width" not in row
        else:
            assert model.args == {"width": row["net.args.width"]} and "vit.heads" not in row
            assert type(model.args["width"]) is int and model.args["width"] in (4, 6, 8)
    (tmp_path / "again").mkdir()
    again = source(found, tmp_path / "again")
    first = [again.next() for _ in range(1)]
    assert first[0] is not None and first[0].shared.model == drawn[0]


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    """Not one of Optuna's own, of which there are several; nobody foresees those."""
    drawing = source(sweep(), tmp_path)
    assert drawing.next() is not None
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="disk I/O error") as caught:
            drawing.next()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path / "study.db")
    assert drawing.next() is not None
