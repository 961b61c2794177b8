"""Sweep to trials to stacks: identity, order, packing, counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitbench.config import Dataset, Model, Sweep, Train, TrialConfig, load_sweep
from vitbench.model.layout import VitShape
from vitbench.model.vit import StackedVit
from vitbench.plan import (
    StackPlan,
    broken_rule,
    expand,
    forward_flops,
    members_of,
    pack,
    parameter_count,
)
from vitbench.plan.names import varying_fields

TABLE_1 = Model(patch_grid=4, depth=12, heads=4, width=192, mlp=768)


def sweep(search: dict[str, object], **model: int) -> Sweep:
    return Sweep.model_validate(
        {"name": "s", "dataset": {"name": "digits"}, "model": model, "search": search}
    )


def trials(count: int, **shape: int) -> list[TrialConfig]:
    model = Model(**shape)
    digits = Dataset(name="digits")
    return [TrialConfig(dataset=digits, model=model, train=Train(seed=s)) for s in range(count)]


def test_table_1_has_5356618_parameters() -> None:
    """The paper's own model, counted in closed form."""
    assert parameter_count(TABLE_1, 32, 1, 10) == 5_356_618


@pytest.mark.parametrize("grid", [1, 2, 4, 8])
def test_counts_agree_with_the_model_that_trains(grid: int) -> None:
    """The closed forms that forecasts and Pareto fronts use, against the real network.

    The network leaves out what the classifier never reads: in the last block only the CLS token
    has a query, a projection and an MLP. The closed form counts the whole block, as papers do.
    """
    model = Model(patch_grid=grid, depth=3, heads=2, width=16, mlp=24)
    shape = VitShape(16, 3, grid, 3, 2, 16, 24, 7)
    vit = StackedVit(shape, 1)
    assert vit.flat.shape[1] == parameter_count(model, 16, 3, 7)
    with FlopCounterMode(display=False) as counter:
        vit(torch.zeros(1, 5, 3, 16, 16))
    tokens, width, mlp = grid**2 + 1, 16, 24
    left_out = 2 * (tokens - 1) * (2 * width * width + 2 * width * mlp)
    fused_attention = 3 * 4 * tokens * tokens * width  # which torch does not count on a CPU
    expected = forward_flops(model, 16, 3, 7) - left_out - fused_attention
    assert counter.get_total_flops() == 5 * expected


def test_a_trial_is_its_resolved_configuration() -> None:
    """What may be used instead does not change what was used; everything else does."""
    base = TrialConfig(dataset=Dataset(name="mnist"), model=Model(), train=Train())
    fallback = Dataset(name="mnist", offline="digits")
    assert base.model_copy(update={"dataset": fallback}).trial_id == base.trial_id
    other = base.model_copy(update={"train": Train(lr=0.1)})
    assert other.trial_id != base.trial_id
    assert len(base.trial_id) == 12


def test_expand_follows_the_file_and_fills_defaults() -> None:
    """The last axis varies fastest; the MLP follows the width where the file names none."""
    found = expand(sweep({"space": {"width": [16, 32], "lr": [0.1, 0.2]}}))
    assert [(t.model.width, t.model.mlp, t.train.lr) for t in found] == [
        (16, 64, 0.1),
        (16, 64, 0.2),
        (32, 128, 0.1),
        (32, 128, 0.2),
    ]


def test_an_axis_of_sizes_draws_anew_for_each_seed() -> None:
    """Unless the file says otherwise; without such an axis all seeds share one subset, as ever."""

    def subsets(axis: dict[str, Any], **train: Any) -> set[str | None]:
        found = sweep({"space": axis})
        found = found.model_copy(update={"train": found.train.model_copy(update=train)})
        return {trial.train.subset for trial in expand(found)}

    sizes = {"train_images": [32, 64]}
    assert subsets(sizes) == {"per_seed"} and subsets(sizes, subset="shared") == {None}
    assert subsets({"lr": [0.1]}) == {None} == subsets({"lr": [0.1]}, subset="shared")
    assert subsets({"lr": [0.1]}, subset="per_seed") == {"per_seed"}


def test_equal_updates_are_epochs_of_each_size() -> None:
    """40 updates of 16 images are 20 passes over 32 images, and nearly 3 over 250."""
    found = sweep({"space": {"train_images": [32, 250], "seed": [0, 1]}})
    found = found.model_copy(update={"train": found.train.model_copy(update={"steps": 40})})
    trials = expand(found)
    assert [(t.train.epochs, t.train.steps) for t in trials[::2]] == [(20, 40), (3, 40)]
    assert set(varying_fields(trials)) == {"train_images", "seed"}
    # A stack holds members of one size.
    assert [plan.size for plan in pack(trials, max_members=9, slots=1)] == [2, 2]
    matched = found.train.model_copy(update={"matched": 24, "train_images": None})
    one = sweep({}).model_copy(update={"train": matched})
    assert [t.train.epochs for t in expand(one)] == [14]


def test_packing_fills_the_slots_before_it_stacks() -> None:
    """Three trials on two slots are two stacks, of sizes that differ by one at most."""
    sizes = [plan.size for plan in pack(trials(3), max_members=16, slots=2)]
    assert sorted(sizes) == [1, 2]
    assert [plan.size for plan in pack(trials(2), max_members=16, slots=8)] == [1, 1]


def test_packing_respects_the_largest_stack() -> None:
    """54 members with at most 16 a stack are four balanced stacks that hold each trial once."""
    plans = pack(trials(54), max_members=16, slots=1)
    assert sorted(plan.size for plan in plans) == [13, 13, 14, 14]
    ids = [member.trial_id for plan in plans for member in plan.members]
    assert len(set(ids)) == 54


def test_packing_fills_the_slots_again() -> None:
    """Nine trials, four a stack at most, two slots: four stacks in two rounds, none waits."""
    assert [plan.size for plan in pack(trials(9), max_members=4, slots=2)] == [3, 2, 2, 2]
    assert [plan.size for plan in pack(trials(5), max_members=1, slots=2)] == [1] * 5


def test_only_stackable_settings_differ_inside_a_stack() -> None:
    """Different depths never share a stack; the longer stack comes first."""
    plans = pack([*trials(2, depth=1), *trials(2, depth=6)], max_members=16, slots=1)
    assert [plan.shared.model.depth for plan in plans] == [6, 1]
    with pytest.raises(ValueError, match="not stackable"):
        StackPlan((*trials(1, depth=1), *trials(1, depth=6)))


def test_a_label_and_all_classes_never_share_a_stack() -> None:
    """They have different numbers of outputs; two labels do share one."""
    digits, model = Dataset(name="digits"), Model()
    all_classes, three, seven = (
        TrialConfig(dataset=digits, model=model, train=Train(label=label))
        for label in (None, "3", "7")
    )
    plans = pack([all_classes, three, seven], max_members=16, slots=1)
    assert sorted(plan.size for plan in plans) == [1, 2]


def test_a_plan_survives_json() -> None:
    """It travels to workers as text."""
    plan = StackPlan(tuple(trials(2)))
    again = StackPlan.from_json(plan.to_json())
    assert again == plan and again.stack_id == plan.stack_id


def test_a_suggestion_trains_the_stack_axes_together() -> None:
    """search.inner multiplies every suggestion; a combination that cannot be built is named."""
    search = {
        "method": "random",
        "space": {"heads": [1, 2, 3]},
        "inner": {"lr": [0.1, 0.2], "seed": [0, 1]},
    }
    found = sweep(search, width=16)
    members = members_of(found, {"heads": 2})
    assert [(m.model.heads, m.train.lr, m.train.seed) for m in members] == [
        (2, 0.1, 0),
        (2, 0.1, 1),
        (2, 0.2, 0),
        (2, 0.2, 1),
    ]
    assert broken_rule(found, {"heads": 2}) is None
    assert broken_rule(found, {"heads": 3}) == "heads=3 does not divide width=16"


@pytest.mark.parametrize("file", sorted(Path(__file__).parents[2].glob("sweeps/*.yaml")), ids=str)
def test_shipped_sweeps_load_at_every_scale(file: Path) -> None:
    """A shipped sweep that does not load is the worst first impression."""
    for scale in ("paper", *load_sweep(file).scales):
        found = load_sweep(file, scale=scale)
        if found.search.is_grid:
            assert expand(found)
    first_line = file.read_text(encoding="utf-8").splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=sweep.schema.json"
