"""Ends workers that neither report nor die, so that their stacks are tried again."""

from __future__ import annotations

import time
from collections.abc import Callable

from vitbench.plan import StackPlan, stack_flops
from vitbench.tuning.events import Crashed, Round, StackEnded, StackEvent, Started, Trained

_LEAST_S = 300.0
_TIMES = 3.0  # its last epoch, the longest of its last report
_SLOWEST_FLOPS = 1e9  # a second: what an epoch is forecast by until one is measured
_EVERY_S = 2.0
_ASLEEP_S = 60.0  # Tune's loop stood still, and nothing could arrive


class Stalls:
    """Names and kills what has not reported for too long.

    A worker whose stack has ended is looked at once more after that time: it should have ended
    too, or have taken another stack. One that has done neither would hold the sweep for ever.

    Args:
        minutes: how long that is; None for three times the stack's last epoch, at least five.
        kill: ends the processes whose last stack has this id; returns how many there were.
        say: shows a line.
        label: a stack's name for people.
        now_s: the clock.
    """

    def __init__(
        self,
        minutes: float | None,
        kill: Callable[[str], int],
        say: Callable[[str], None],
        label: Callable[[StackPlan], str],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._minutes = minutes
        self._kill = kill
        self._say = say
        self._label = label
        self._now_s = now_s
        self._round_s = now_s()
        self._plans: dict[str, StackPlan] = {}
        self._last_s: dict[str, float] = {}
        self._longest_s: dict[str, float] = {}  # between two reports; before the first, a forecast
        self._ended: dict[str, StackPlan] = {}

    def observe(self, event: StackEvent) -> None:
        """Note who reports, and look around every few seconds."""
        now_s = self._now_s()
        match event:
            case Started(plan):
                key = plan.stack_id
                self._plans[key], self._last_s[key] = plan, now_s
                forecast_s = stack_flops(plan) / plan.shared.train.epochs / _SLOWEST_FLOPS
                self._longest_s.setdefault(key, forecast_s)
            case Trained(plan, report) if plan.stack_id in self._plans and report.rows:
                key = plan.stack_id
                self._longest_s[key] = max(row.epoch_s for row in report.rows)
                self._last_s[key] = now_s
            case StackEnded(plan, _):
                self._plans.pop(plan.stack_id, None)
                self._ended[plan.stack_id], self._last_s[plan.stack_id] = plan, now_s
            case Crashed(plan, _, _, _):
                self._plans.pop(plan.stack_id, None)
            case Round() if now_s - self._round_s >= _EVERY_S:
                asleep_s = now_s - self._round_s
                self._round_s = now_s
                if asleep_s > _ASLEEP_S:
                    self._last_s = {key: at_s + asleep_s for key, at_s in self._last_s.items()}
                self._look(now_s)

    def _look(self, now_s: float) -> None:
        for key, plan in list(self._plans.items()):
            silent_s, limit_s = now_s - self._last_s[key], self._limit_s(key)
            if silent_s > limit_s:
                self._say(
                    f"{self._label(plan)}: its worker has not reported for {silent_s / 60:.1f} "
                    f"minutes (stall_minutes: {limit_s / 60:.1f}): it is killed, and the stack "
                    f"goes on from its last checkpoint"
                )
                self._last_s[key] = now_s
                self._kill(key)
        for key, plan in list(self._ended.items()):
            if now_s - self._last_s[key] > self._limit_s(key):
                del self._ended[key]
                if self._kill(key):
                    self._say(f"{self._label(plan)}: its worker did not end with it: it is killed")

    def _limit_s(self, key: str) -> float:
        if self._minutes is not None:
            return self._minutes * 60
        return max(_LEAST_S, _TIMES * self._longest_s.get(key, 0.0))
