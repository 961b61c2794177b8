"""Out of memory halves a stack and loses no member; a reused process is set up anew."""

from __future__ import annotations

import pytest
import tiny
import torch

from vitbench.plan import StackPlan
from vitbench.tuning.worker.train import fit_or_halve


def test_every_member_is_trained_once_in_stacks_that_fit() -> None:
    """Five members where two fit: 5 -> 3 -> 2, 1 and 2, in the order of the stack."""
    plan = tiny.plan(*({"lr": lr} for lr in (0.1, 0.2, 0.3, 0.4, 0.5)))
    trained: list[int] = []
    sizes: list[int] = []
    released: list[bool] = []

    def run(part: StackPlan) -> bool:
        sizes.append(part.size)
        if part.size > 2:
            raise torch.OutOfMemoryError
        trained.extend(plan.members.index(member) for member in part.members)
        return True

    fit_or_halve(plan, run, lambda: released.append(True))
    assert trained == [0, 1, 2, 3, 4]
    assert sizes == [5, 3, 2, 1, 2]
    assert len(released) == 2


def test_one_model_that_does_not_fit_is_an_error() -> None:
    """It must end as `oom`, not in an endless halving."""

    def run(part: StackPlan) -> bool:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        fit_or_halve(tiny.plan(), run, lambda: None)


def test_a_request_to_end_ends_the_other_halves_too() -> None:
    """After Ctrl-C no further half is started; its members go on with the resume."""
    sizes: list[int] = []

    def run(part: StackPlan) -> bool:
        sizes.append(part.size)
        if part.size > 1:
            raise torch.OutOfMemoryError
        return False

    fit_or_halve(tiny.plan({"lr": 0.1}, {"lr": 0.2}), run, lambda: None)
    assert sizes == [2, 1]
