"""An Optuna study as a source of stacks: asked for suggestions, told how they ended.

The study lives in `study.db` in the results folder and is written by the driver alone. Each
suggestion is one Optuna trial and one Ray trial, ended exactly once:

    finished                      COMPLETE with its value
    diverged (every model of it)  COMPLETE with a finite worst value
    stopped early                 PRUNED, with the values of its epochs
    invalid combination           PRUNED at once, nothing trained
    suggested before              COMPLETE with the known value, nothing trained
    crashed for the last time     FAIL
    interrupted, out of budget,
    or the sweep gave up          stays RUNNING; a resumed sweep goes on with it

Where a sampler keeps suggesting what is known, a combination that a finite space has left is taken.

The sampler is built anew for every suggestion from (seed, number of the suggestion). A resumed
search therefore draws what an undisturbed one would have drawn.
"""

from __future__ import annotations

import errno
import itertools
import math
import random
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext

from vitbench.config import Range, Search, Sweep, axes_of, is_whole, models_of
from vitbench.config.axes import MODEL
from vitbench.config.search import EACH_EPOCH
from vitbench.errors import UserError
from vitbench.plan import StackPlan, broken_rule, members_of
from vitbench.records.history import History
from vitbench.records.types import EpochRow, Status, TrialOutcome
from vitbench.tuning.search import objective as objectives

_MAX_REJECTED_IN_A_ROW = 1000
# A sampler that repeats itself so often in a row knows no better; each takes up to a second.
_REPEATS_IN_A_ROW = 10
_MAX_COUNTED = 100_000
_STACK = "stack_id"
_REASON = "reason"
_RETRIED = "retried"  # of the study: numbers of crashed trials that were enqueued again
AGAIN = "suggested before"
_HALF_DRAWN = "the driver died while it was drawn"


@event.listens_for(Engine, "handle_error")
def _cannot_write(context: ExceptionContext) -> None:
    """Raise what cannot be written any more as an OSError, as of every other file."""
    error = context.original_exception
    codes = {
        sqlite3.SQLITE_FULL: errno.ENOSPC,
        sqlite3.SQLITE_IOERR: errno.EIO,
        sqlite3.SQLITE_READONLY: errno.EROFS,
    }
    code = codes.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)  # without its details
    if code is not None:
        raise OSError(code, str(error), context.engine and context.engine.url.database) from error


def distributions(axes: Mapping[str, list[Any] | Range]) -> dict[str, BaseDistribution]:
    """Axes in Optuna's terms: lists are categorical, ranges are ranges."""
    space: dict[str, BaseDistribution] = {}
    for name, axis in axes.items():
        if not isinstance(axis, Range):
            space[name] = CategoricalDistribution(list(axis))
        elif is_whole(name, axis):
            step = int(axis.step) if axis.step is not None else 1
            space[name] = IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=step)
        else:
            space[name] = FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)
    return space


def _suggest(trial: Trial, name: str, axis: list[Any] | Range) -> None:
    """Draw one setting of a suggestion, as its distribution says."""
    if not isinstance(axis, Range):
        trial.suggest_categorical(name, list(axis))
    elif is_whole(name, axis):
        step = int(axis.step) if axis.step is not None else 1
        trial.suggest_int(name, int(axis.low), int(axis.high), log=axis.log, step=step)
    else:
        trial.suggest_float(name, axis.low, axis.high, log=axis.log, step=axis.step)


def make_sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """A sampler for suggestion `number`: the same again after any interruption."""
    seed = (search.seed * 1_000_003 + number) % 2**32
    return _SAMPLERS["random" if search.method == "random" else search.sampler](search.seed, seed)


# Each sampler of config.Search.sampler, from the search's seed and that of the suggestion.
_SAMPLERS: dict[str, Callable[[int, int], optuna.samplers.BaseSampler]] = {
    "random": lambda _, seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda _, seed: optuna.samplers.TPESampler(seed=seed),
    "gp": lambda _, seed: optuna.samplers.GPSampler(seed=seed),
    "cmaes": lambda _, seed: optuna.samplers.CmaEsSampler(seed=seed),
    # Its place in the sequence is kept in the study, the scrambling by the seed.
    "qmc": lambda of_search, _: optuna.samplers.QMCSampler(seed=of_search, scramble=True),
}


class StudySource:
    """Asks the study at `path` for stacks and tells it how they ended.

    The sweep has the data set that is really used, with so many channels and outputs; the history
    is of the runs before, so that nothing is paid for twice. `record` is given each suggestion once
    it is drawn: number, settings, and the reason where it is not trained.
    """

    def __init__(
        self,
        sweep: Sweep,
        path: Path,
        *,
        channels: int,
        outputs: int,
        history: History,
        record: Callable[[dict[str, Any]], None] = lambda drawn: None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # A stack that goes on from a checkpoint may report an epoch once more, with the same value.
        warnings.filterwarnings("ignore", message="The reported value is ignored")
        self._sweep = sweep
        self._channels = channels
        self._outputs = outputs
        self._history = history
        self._record = record
        self._known: dict[str, list[TrialOutcome]] = {
            stack_id: [history.outcomes[trial_id] for trial_id in members]
            for stack_id, members in history.stacks.items()
            if members and all(history.is_done(trial_id) for trial_id in members)
        }
        # Of each model: a suggestion draws which one, then what that one has.
        self._spaces = {
            name: distributions(dict(axes_of(sweep.search.space, name)))
            for name in models_of(sweep)
        }
        self._objectives: list[str] = list(sweep.search.objectives)
        self._study = optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name=sweep.name,
            directions=[objectives.direction(name) for name in self._objectives],
            load_if_exists=True,
        )
        with warnings.catch_warnings():  # the names are for those who open the study
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names(self._objectives)
        combinations = self._combinations()
        self._buildable = None if combinations is None else len(combinations)
        self._live: dict[str, tuple[Trial, StackPlan]] = {}
        self._retried: list[int] = self._study.user_attrs.get(_RETRIED, [])
        self._to_resume = self._reconcile()

    @property
    def total(self) -> int:
        """Suggestions that the search ends with."""
        return self._sweep.search.suggestions

    @property
    def minimises(self) -> bool:
        """Whether less of the first objective is better."""
        return objectives.direction(self._objectives[0]) == "minimize"

    def past(self) -> Iterator[tuple[StackPlan, dict[int, list[EpochRow]]]]:
        """Ended stacks of the runs before, with their rows by epoch: what a scheduler must know."""
        for frozen in self._study.get_trials(deepcopy=False):
            params = frozen.params
            if self._is_half_drawn(params) or broken_rule(self._sweep, params):
                continue
            plan = self.plan_of(frozen.params)
            epochs: dict[int, list[EpochRow]] = {}
            for member in plan.members:
                for epoch, row in self._history.rows(member.trial_id).items():
                    epochs.setdefault(epoch, []).append(row)
            if epochs and plan.stack_id in self._known:
                yield plan, epochs

    def suggestions(self) -> list[dict[str, Any]]:
        """Every suggestion so far, in the order of asking: a row of suggestions.parquet each.

        After `state` (Optuna's) come the stack that it stands for, the reason why it was not
        trained, its settings, the objectives where it ended with values, and whether no other
        trained suggestion is at least as good in every objective and better in one.
        """
        front = {trial.number for trial in self._study.best_trials}
        no_values = [None] * len(self._objectives)
        return [
            {
                "number": trial.number,
                "state": trial.state.name,
                "stack_id": trial.user_attrs.get(_STACK),
                "reason": trial.user_attrs.get(_REASON),
                **trial.params,
                **dict(zip(self._objectives, values, strict=True)),
                "pareto": trial.number in front,
            }
            for trial in self._study.get_trials(deepcopy=False)
            # Optuna keeps the last value of one that was stopped, too; it is no end.
            for values in [trial.values if trial.state is TrialState.COMPLETE else no_values]
        ]

    def plan_of(self, params: Mapping[str, Any]) -> StackPlan:
        """The stack that a suggestion stands for; the same parameters give the same stack."""
        return StackPlan(tuple(members_of(self._sweep, params)))

    def next(self) -> StackPlan | None:
        """Return an unfinished stack from before the resume, else a new suggestion, else None.

        Raises:
            UserError: if no valid, new combination could be found.
        """
        if self._to_resume:
            return self._to_resume.pop(0)
        for _ in range(_MAX_REJECTED_IN_A_ROW):
            if self._paid_for() >= self.total or self._used_up():
                return None
            asked = self._study.get_trials(deepcopy=False)
            number = sum(trial.user_attrs.get(_REASON) != _HALF_DRAWN for trial in asked)
            self._study.sampler = make_sampler(self._sweep.search, number)
            if _repeats(asked) >= _REPEATS_IN_A_ROW and (left := self._left(number)):
                self._study.enqueue_trial(left)
            trial = self._draw()
            plan = self._take(trial, is_new=True)
            reason = trial.user_attrs.get(_REASON)
            self._record({"number": trial.number, "params": trial.params, "reason": reason})
            if plan:
                return plan
        if self._live or self._known:
            return None  # the space is used up: everything valid has been tried
        reason = broken_rule(self._sweep, trial.params)
        raise UserError(
            f"search.space: {_MAX_REJECTED_IN_A_ROW} suggestions in a row broke a rule "
            f"(the last: {reason}); widen the space so that valid combinations exist."
        )

    def _draw(self) -> Trial:
        """A new suggestion, drawn setting by setting."""
        if None in self._spaces:
            return self._study.ask(self._spaces[None])
        choice = CategoricalDistribution(list(self._spaces))
        trial = self._study.ask({MODEL: choice})
        for name, axis in axes_of(self._sweep.search.space, trial.params[MODEL]):
            _suggest(trial, name, axis)
        return trial

    def _is_half_drawn(self, params: Mapping[str, Any]) -> bool:
        named = MODEL in params or None in self._spaces
        return not named or not self._spaces[params.get(MODEL)].keys() <= params.keys()

    def _take(self, trial: Trial, *, is_new: bool) -> StackPlan | None:
        """The stack that a suggestion asks to train; None where its end is known already."""
        if reason := broken_rule(self._sweep, trial.params):
            self._close(trial, reason, TrialState.PRUNED)
            return None
        plan = self.plan_of(trial.params)
        trial.set_user_attr(_STACK, plan.stack_id)
        if plan.stack_id in self._known:
            if is_new:
                trial.set_user_attr(_REASON, AGAIN)
            self._tell_outcome(trial, plan, self._known[plan.stack_id])
            return None
        if plan.stack_id in self._live:  # still training; its value is not known yet
            self._close(trial, f"{AGAIN}, still training", TrialState.PRUNED)
            return None
        self._live[plan.stack_id] = trial, plan
        return plan

    def reported(self, stack_id: str, epoch: int, rows: Sequence[EpochRow]) -> None:
        """An epoch of a running stack (single objective only: Optuna's own limit)."""
        measured = self._objectives[0] in EACH_EPOCH
        measured = measured and objectives.are_evaluated(rows)
        if stack_id in self._live and len(self._objectives) == 1 and measured:
            trial, plan = self._live[stack_id]
            trial.report(self.objective_now(plan, rows), epoch)

    def objective_now(self, plan: StackPlan, rows: Sequence[EpochRow]) -> float:
        """The first objective after an epoch; a finite worst value where all have diverged."""
        name = self._objectives[0]
        values = {row.trial_id: objectives.after_epoch(row, name) for row in rows}
        stand_in = objectives.worst(name, [], self._outputs)
        return objectives.best_arm(plan.members, values, objective=name, stand_in=stand_in)

    def ended(self, stack_id: str, outcomes: Sequence[TrialOutcome]) -> None:
        """Tell the study how a stack ended; one that only pauses stays open for the resume."""
        trial, plan = self._live.pop(stack_id, (None, None))
        if trial and plan and not any(outcome.status.is_pause for outcome in outcomes):
            self._known[stack_id] = list(outcomes)
            self._tell_outcome(trial, plan, outcomes)

    def _close(self, trial: Trial, reason: str, state: TrialState) -> None:
        """End a suggestion that is not trained."""
        trial.set_user_attr(_REASON, reason)
        self._study.tell(trial, state=state)

    def _paid_for(self) -> int:
        """Suggestions that were trained or are training."""
        return sum(
            trial.state is not TrialState.WAITING
            and _REASON not in trial.user_attrs
            and trial.number not in self._retried
            for trial in self._study.get_trials(deepcopy=False)
        )

    def _used_up(self) -> bool:
        """Whether every combination of a finite space has been trained or is training."""
        tried = self._known.keys() | self._live.keys()
        return self._buildable is not None and len(tried) >= self._buildable

    def _left(self, number: int) -> dict[str, Any]:
        """One of the combinations that nobody has tried; nothing in a space without end.

        Which one depends on the number of the suggestion alone, so that a resume draws the same.
        """
        combinations = self._combinations() or []
        random.Random(f"{self._sweep.search.seed}-{number}").shuffle(combinations)
        tried = self._known.keys() | self._live.keys()
        return next((c for c in combinations if self.plan_of(c).stack_id not in tried), {})

    def _combinations(self) -> list[dict[str, Any]] | None:
        """All that can be built; None for a space without end (or nearly so)."""
        found: list[dict[str, Any]] = []
        for name, space in self._spaces.items():
            choices: list[Sequence[Any]] = []
            for distribution in space.values():
                if isinstance(distribution, FloatDistribution):
                    return None
                if isinstance(distribution, IntDistribution):
                    low, high, step = distribution.low, distribution.high, distribution.step
                    choices.append(range(low, high + 1, step))
                elif isinstance(distribution, CategoricalDistribution):
                    choices.append(distribution.choices)
            if math.prod(map(len, choices)) > _MAX_COUNTED:
                return None
            named = {} if name is None else {MODEL: name}
            for values in itertools.product(*choices):
                params = {**named, **dict(zip(space, values, strict=True))}
                if broken_rule(self._sweep, params) is None:
                    found.append(params)
        return found

    def _tell_outcome(
        self, trial: Trial, plan: StackPlan, outcomes: Sequence[TrialOutcome]
    ) -> None:
        statuses = {outcome.status for outcome in outcomes}
        if any(status.is_failure for status in statuses):
            self._study.tell(trial, state=TrialState.FAIL)
        elif statuses == {Status.STOPPED}:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, [self._value(n, plan, outcomes) for n in self._objectives])

    def _value(self, name: str, plan: StackPlan, outcomes: Sequence[TrialOutcome]) -> float:
        if name in ("parameters", "train_flops"):
            return objectives.cost(name, plan, channels=self._channels, outputs=self._outputs)
        if name == "lr_sensitivity":
            losses = objectives.final_metric(outcomes, "val_loss")
            chance = math.log(max(2, self._outputs))
            return objectives.lr_sensitivity(plan.members, losses, chance)
        at = self._objectives.index(name)
        seen = [t.values[at] for t in self._study.get_trials(deepcopy=False) if t.values]
        values = objectives.final_metric(outcomes, name)
        stand_in = objectives.worst(name, seen, self._outputs)
        return objectives.best_arm(plan.members, values, objective=name, stand_in=stand_in)

    def _report_past(self, trial: Trial) -> None:
        """Report the epochs of a suggestion that the ledger has."""
        if len(self._objectives) > 1 or broken_rule(self._sweep, trial.params):
            return
        plan = self.plan_of(trial.params)
        epochs = [self._history.rows(member.trial_id) for member in plan.members]
        for epoch in sorted({epoch for rows in epochs for epoch in rows}):
            rows = [of_member[epoch] for of_member in epochs if epoch in of_member]
            if self._objectives[0] in EACH_EPOCH and objectives.are_evaluated(rows):
                trial.report(self.objective_now(plan, rows), epoch)

    def _reconcile(self) -> list[StackPlan]:
        """Bring the study up to the ledger after a crash; return the stacks still to be trained.

        A driver that died between the ledger's line and the study's left trials RUNNING whose
        outcome is known: they are told now. The others go on as the same Optuna trial.
        """
        to_resume = []
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            trial = Trial(self._study, frozen._trial_id)
            if self._is_half_drawn(frozen.params):  # FAIL: samplers do not see it, it is redrawn
                self._close(trial, _HALF_DRAWN, TrialState.FAIL)
                continue
            if not frozen.intermediate_values:  # of a study that was made again
                self._report_past(trial)
            if plan := self._take(trial, is_new=False):
                to_resume.append(plan)
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
            if _REASON not in frozen.user_attrs and frozen.number not in self._retried:
                # It crashed for the last time in a run before. A finished trial cannot be marked.
                self._retried.append(frozen.number)
                self._study.set_user_attr(_RETRIED, self._retried)
                self._study.enqueue_trial(frozen.params)
        return to_resume


def _repeats(asked: Sequence[FrozenTrial]) -> int:
    """How many of the last suggestions, in a row, had been suggested before."""
    reasons = (str(trial.user_attrs.get(_REASON)) for trial in reversed(asked))
    return sum(1 for _ in itertools.takewhile(lambda r: r.startswith(AGAIN), reasons))
