"""Both precisions learn the same: their losses differ by less than those of different seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitbench import data
from vitbench.config import Dataset, Model, Train, TrialConfig
from vitbench.plan import StackPlan
from vitbench.training.engine import fit

SEEDS = range(5)


@pytest.mark.slow
def test_losses_of_both_precisions_agree_within_the_spread_of_seeds() -> None:
    """Which one a machine chooses must not decide what a sweep finds.

    The mean difference of paired seeds lies within the standard deviation over seeds, and the
    models did learn, so that there is something to agree on.
    """
    digits = data.load(Dataset(name="digits", image_size=16), None).subset(1024, 160, 160)
    model = Model(patch_grid=4, depth=3, heads=2, width=48, mlp=96)

    def losses(precision: str) -> np.ndarray:
        """Training and validation loss of each seed, [2, S]."""
        trains = [
            Train(lr=1e-3, seed=s, epochs=4, batch_size=16, precision=precision)  # type: ignore[arg-type]
            for s in SEEDS
        ]
        dataset = Dataset(name="digits", image_size=16)
        members = [TrialConfig(dataset=dataset, model=model, train=train) for train in trains]
        plan, cpu = StackPlan(tuple(members)), torch.device("cpu")
        ended = fit(plan, digits, device=cpu, report=lambda _: True).trials
        assert {outcome.precision_used for outcome in ended} == {precision}
        return np.array([[o.train_loss for o in ended], [o.val_loss for o in ended]])

    exact, rounded = losses("float32"), losses("bfloat16")
    assert (exact != rounded).all()
    assert (exact < 0.6 * np.log(10)).all()
    spread = np.maximum(exact.std(axis=1, ddof=1), rounded.std(axis=1, ddof=1))
    assert (np.abs((rounded - exact).mean(axis=1)) < spread).all()
