"""Findings, claims and limits of a folder: what is asserted, what is named, what JSON holds."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import result_folder
from json_schema import matches
from scipy import stats

from vitbench.analysis import __main__, results, summary
from vitbench.analysis.findings import limits, settings
from vitbench.analysis.findings.arms import standing_in
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.render import sentence, short
from vitbench.analysis.learning_rate import figures as curves
from vitbench.errors import UserError
from vitbench.plan import TrialConfig

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(p.parent for p in (ROOT / "analysis" / "data").glob("*/sweep.yaml"))
SHORT = result_folder.GRID.replace("[0.0001, 0.001, 0.01, 0.1, 1.0]", "[0.001, 0.01]")


def texts(folder: Path) -> list[str]:
    return [sentence(f) for f in summary.summarise(results.load(folder)).findings]


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda p: p.name)
def test_json_is_one_object_of_the_schema(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every shipped folder, without a ledger: every key, every type, nothing else, no file."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = sorted(copy.rglob("*"))
    assert __main__.main([str(copy), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert matches(shown, summary.SummaryJson)
    environment = json.loads((folder / "environment.json").read_text())
    assert shown["scale"] == environment["scale"]
    assert shown["findings"] and shown["limits"] and shown["arms"]
    assert sorted(copy.rglob("*")) == before
    for finding in shown["findings"]:
        assert not finding["asserts"] or finding["family"]
        assert finding["text"][0].isupper() and finding["text"][-1] in ".!?"
        assert finding["p"] is None or 0 < finding["p"] <= finding["p_adjusted"] <= 1
    if any(finding["asserts"] for finding in shown["findings"]):
        every = [*shown["limits"], *(finding["text"] for finding in shown["findings"])]
        assert not any("nothing is claimed" in text for text in every)
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for keys in (shown, shown["findings"][0], shown["arms"][0]):
        assert all(f"| `{key}` |" in page for key in keys)


def test_the_schema_check_can_fail() -> None:
    """A missing key, a wrong type and a NaN are each refused."""
    good = {"name": "a", "settings": {}, "seeds": 1, "without_end": 0, "diverged": 0}
    assert matches(good, summary.ArmJson)
    assert not matches({**good, "seeds": 1.0}, summary.ArmJson)
    assert not matches({"name": "a"}, summary.ArmJson)
    assert not matches(math.nan, float)


@pytest.mark.parametrize("folder", ["label_attention", "mnist_arch"])
def test_json_loads_nothing_that_draws_or_trains(folder: str) -> None:
    """What makes it fast, also of labels and a search: nothing slow is imported."""
    made = ROOT / "analysis" / "data" / folder
    code = (
        "import sys; from vitbench.analysis.__main__ import main; main([sys.argv[1], '--json']); "
        "slow = ('matplotlib', 'torch', 'ray', 'scipy.stats', 'sklearn', 'optuna'); "
        "print([m for m in slow if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(made)], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"
    assert json.loads(done.stdout)["findings"]


@pytest.mark.parametrize(
    "axis",
    [
        "warmup_epochs: [0.0, 1.0]",
        "mlp: [8, 16]",
        "epochs: [2, 3]",
        "clip_norm: [1.0, 2.0]",
        "momentum: [0.5, 0.9]",
        "val_images: [50, 100]",
        "precision: [float32, bfloat16]",
    ],
)
def test_every_axis_makes_arms(tmp_path: Path, axis: str) -> None:
    """No axis is merged: 2 rates by 2 values over 6 seeds are 4 arms, not "over 12 seeds"."""
    made = result_folder.make(tmp_path / "r", SHORT.replace("seed:", f"{axis}, seed:"))
    shown = summary.as_json(results.load(made))
    assert [arm["seeds"] for arm in shown["arms"]] == [6, 6, 6, 6]
    assert "Of 4 settings" in " ".join(finding["text"] for finding in shown["findings"])
    assert "12 seeds" not in json.dumps(shown)


def test_the_rate_of_each_value_of_an_axis_is_its_own(tmp_path: Path) -> None:
    """With train_images x lr the sentences on rates are per number of images."""
    text = result_folder.GRID.replace("seed:", "train_images: [100, 300], seed:")

    def loss(trial: TrialConfig) -> float:
        best = -1 if trial.train.train_images == 100 else -3
        return 0.3 + 0.2 * abs(math.log10(trial.train.lr) - best) + 0.001 * trial.train.seed

    said = " ".join(texts(result_folder.make(tmp_path / "r", text, loss)))
    assert "Train images 100: of 5 learning rates the mean validation loss is lowest at 0.1" in said
    assert (
        "Train images 300: of 5 learning rates the mean validation loss is lowest at 0.001" in said
    )


def test_two_trials_of_one_arm_and_seed_are_an_error(tmp_path: Path) -> None:
    """An average over both would count one seed twice."""
    made = result_folder.make(tmp_path / "r", SHORT)
    found = results.load(made)
    found.trials.loc[1, "seed"] = found.trials.loc[0, "seed"]
    with pytest.raises(UserError, match="count one seed twice"):
        summary.summarise(found)


def test_a_better_arm_is_mentioned(tmp_path: Path) -> None:
    """Lowest in validation, and another better in test on all seeds: the report says so."""
    made = result_folder.make(tmp_path / "r", SHORT)
    found = results.load(made)
    other = found.trials["lr"] == 0.001
    found.trials.loc[other, "test_loss"] = 0.01 + 0.001 * found.trials.loc[other, "seed"]
    (lowest,) = [f for f in settings.findings(found) if f.kind == "lowest_setting"]
    assert lowest.arms == ("lr 0.01", "lr 0.001") and lowest.asserts
    assert "But learning rate 0.001 is better than it in test loss" in sentence(lowest)
    assert "In test loss learning rate 0.001 is better than it" in short(lowest)


def test_a_list_of_one_kind_ends_in_how_many_more_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10,000 models give tens of thousands of findings of a kind; JSON lists them all."""
    found = results.load(result_folder.make(tmp_path))
    many = [Finding("all_diverged", n=n) for n in range(2, 1502)]
    several = [Finding("only_setting", effect=0.5, n=1)] * 31
    made = dataclasses.replace(summary.summarise(found), findings=[*many, *several])
    monkeypatch.setattr(summary, "summarise", lambda results: made)
    told = summary.sentences(found)
    assert len(told) == 30 + 1 + 31 and len(summary.listed(found)) == 1531
    assert told[30] == "And 1,470 more like these, which `vitbench analysis --json` lists."


def test_an_arm_that_diverged_is_worse_and_named(tmp_path: Path) -> None:
    """Diverged six times of six: claimed to be worse, not left out."""
    made = result_folder.make(tmp_path / "r")
    found = summary.summarise(results.load(made)).findings
    assert ("lr 1", "lr 0.01") in [f.arms for f in found if f.kind == "setting_is_higher"]
    said = " ".join(map(sentence, found))
    assert "Diverged: learning rate 1 (6 seeds)" in said
    assert "From 1 on, at every rate tried some seed diverges" in said


def test_curves_and_their_words_do_not_average_survivors(tmp_path: Path) -> None:
    """Five of six seeds diverged at 0.001: the one that did not is not the mean."""

    def loss(trial: TrialConfig) -> float:
        gone = trial.train.lr == 0.001 and trial.train.seed > 0
        return math.nan if gone else result_folder.bowl(trial)

    found = results.load(result_folder.make(tmp_path / "r", SHORT, loss))
    data = curves.curves_data(found)
    assert data is not None
    row = data.query("lr == 0.001 and split == 'test' and epoch == 3").iloc[0]
    alone = found.epochs.query("epoch == 3").merge(found.trials.query("lr == 0.001 and seed == 0"),
                                                   on="trial_id")["test_loss_x"].item()  # fmt: skip
    assert row["mean"] == pytest.approx((alone + 5 * 2.3) / 6) and row["diverged"] == 5
    assert "5 diverged" in sentence(curves.describe_curves(data))
    final = curves.loss_by_lr_data(found)
    assert final is not None
    said = sentence(curves.describe_loss_by_lr(final))
    assert "lowest, 0.2" in said and "at 0.01; 5 diverged" in said


def test_the_lowest_rate_is_told_of_each_setting(tmp_path: Path) -> None:
    """No mean is over settings that the figure shows apart; the lowest comes first."""
    text = SHORT.replace("lr: [", "depth: [1, 2], lr: [")

    def loss(trial: TrialConfig) -> float:
        return result_folder.bowl(trial) + (0.5 if trial.model.depth == 1 else 0.0)

    found = results.load(result_folder.make(tmp_path / "r", text, loss))
    final = curves.loss_by_lr_data(found)
    assert final is not None
    low, high = (
        found.trials.query(f"depth == {depth}").groupby("lr")["val_loss"].mean().min()
        for depth in (2, 1)
    )
    said = sentence(curves.describe_loss_by_lr(final))
    assert f"lowest, {low:.3g}, at 0.01 with depth 2; {high:.3g}, at 0.01 with depth 1;" in said


def test_a_mean_over_fewer_seeds_than_the_arm_has_is_not_drawn(tmp_path: Path) -> None:
    """A seed that is still in its second epoch: the arm's curve ends there."""
    found = results.load(result_folder.make(tmp_path / "r", SHORT))
    first = found.trials["trial_id"].iloc[0]
    fewer = found.epochs[(found.epochs["trial_id"] != first) | (found.epochs["epoch"] < 3)]
    lr = found.trials["lr"].iloc[0]
    data = curves.mean_curves(fewer, found.trials, ["lr"])
    assert data[data["lr"] == lr]["epoch"].max() == 2
    assert data[data["lr"] != lr]["epoch"].max() == 3


def test_choosing_is_scored_on_seeds_that_did_not_choose(tmp_path: Path) -> None:
    """The winner's curse is printed: by the loss of the seed that had no say, or by name."""
    many = result_folder.make(tmp_path / "many", SHORT)
    found = results.load(many)
    (told,) = [f for f in settings.findings(found) if f.kind == "chosen_on_other_seeds"]
    table = found.trials.pivot(index="seed", columns="lr", values="val_loss")
    expected = [table.loc[s, table.drop(index=s).mean().idxmin()] for s in table.index]
    assert told.effect == pytest.approx(sum(expected) / 6)
    # Seed 0 alone makes the other rate look best: without it the five others would not choose it.
    found = results.load(many)
    other = found.trials["lr"] == 0.001
    found.trials.loc[other, "val_loss"] = table[0.01].mean() + 0.02
    found.trials.loc[other & (found.trials["seed"] == 0), "val_loss"] = 0.001
    values = found.trials.loc[other, "val_loss"].astype(float)
    assert values.mean() < table[0.01].mean()
    (told,) = [f for f in settings.findings(found) if f.kind == "chosen_on_other_seeds"]
    assert told.effect > table[0.01].mean() > told.facts["chosen"] == pytest.approx(values.mean())
    one = result_folder.make(tmp_path / "one", SHORT.replace("[0, 1, 2, 3, 4, 5]", "[0]"))
    assert any("low by chance" in text for text in texts(one))


def test_losses_of_labels_are_not_compared(tmp_path: Path) -> None:
    """Settings are compared within a label; a sweep over labels alone compares no settings."""
    text = SHORT.replace("seed:", "label: ['3', '7'], seed:")

    def loss(trial: TrialConfig) -> float:
        return result_folder.bowl(trial) + (1.0 if trial.train.label == "7" else 0.0)

    found = settings.findings(results.load(result_folder.make(tmp_path / "r", text, loss)))
    assert [f.arms for f in found if f.kind == "setting_is_higher"] == [
        ("lr 0.001, label 3", "lr 0.01, label 3"),
        ("lr 0.001, label 7", "lr 0.01, label 7"),
    ]
    only = text.replace("lr: [0.001, 0.01], ", "")
    assert settings.findings(results.load(result_folder.make(tmp_path / "o", only, loss))) == []


@pytest.mark.parametrize(
    ("change", "until", "told"),
    [
        ({}, 0, "no_trial_ended"),
        ({"loss": lambda trial: math.nan}, None, "all_diverged"),
        ({"text": SHORT.replace("[0.001, 0.01]", "[0.01]")}, None, "only_setting"),
    ],
)
def test_folders_in_which_nothing_can_be_compared(
    tmp_path: Path, change: dict[str, Any], until: int | None, told: str
) -> None:
    """Nothing ended, everything diverged, one setting: said in a sentence, nothing asserted."""
    made = result_folder.make(tmp_path / "r", **{"text": SHORT, **change}, until=until)
    found = summary.summarise(results.load(made)).findings
    assert told in [f.kind for f in found] and not any(f.asserts for f in found)


def test_images_are_those_that_were_used(tmp_path: Path) -> None:
    """The limit on few test images rests on numbers in the tables or the environment."""
    found = results.load(result_folder.make(tmp_path / "r", SHORT))
    found.sweep["train"]["test_images"] = 5000  # asked for; the tables say that 50 were there
    said = [sentence(limit) for limit in summary.summarise(found).limits]
    assert any(text.startswith("With 50 test images the highest test accuracy") for text in said)
    assert any(text.startswith("All 6 seeds train on the same images") for text in said)
    older = results.Results(
        folder=found.folder,
        trials=found.trials.drop(columns=["val_images", "test_images"]),
        epochs=found.epochs,
        sweep={**found.sweep, "train": {}},
        environment={**found.environment, "images": {"val": 40, "test": 30}},
    )
    said = [sentence(limit) for limit in summary.summarise(older).limits]
    assert any(text.startswith("With 30 test images") for text in said)
    nothing = {k: v for k, v in older.environment.items() if k != "images"}
    older = results.Results(older.folder, older.trials, older.epochs, older.sweep, nothing)
    said = [sentence(limit) for limit in summary.summarise(older).limits]
    assert any("number of test images was not recorded" in text for text in said)


def test_losses_above_the_one_before_training_are_bounded_and_said(tmp_path: Path) -> None:
    """A difference is not that of the tables then, so a limit names how many models it concerns."""
    opened = results.load(result_folder.make(tmp_path / "r"))
    kinds = [limit.kind for limit in limits.limits(opened)]
    assert "limit_above_start" not in kinds
    trials = opened.trials.copy()
    row = trials.index[trials["status"] == "finished"][0]
    before = float(trials.loc[row, "initial_val_loss"])
    trials.loc[row, "test_loss"] = before + 0.5
    found = limits.limits(dataclasses.replace(opened, trials=trials))
    (told,) = [limit for limit in found if limit.kind == "limit_above_start"]
    assert told.n == 1 and "One model ends at a loss above" in sentence(told)
    assert standing_in(trials, "test_loss")[row] == before


def test_the_interval_of_an_accuracy_is_wilsons(tmp_path: Path) -> None:
    """All test images right of 50: the accuracy is not known to be 1."""
    found = results.load(result_folder.make(tmp_path / "r", SHORT))
    found.trials["test_accuracy"] = 1.0
    (limit,) = [
        limit
        for limit in summary.summarise(found).limits
        if limit.kind == "limit_few_images" and limit.metric == "test_accuracy"
    ]
    expected = stats.binomtest(50, 50).proportion_ci(method="wilson")
    assert (limit.low, limit.high) == pytest.approx((expected.low, expected.high), abs=1e-4)
    assert "1.000 (chance 0.1), may stand for anything from 0.929 to 1.000" in sentence(limit)


def test_claims_come_first_with_their_verdicts(tmp_path: Path) -> None:
    """A claim of the file is judged; one that was not there at the start is marked."""
    made = result_folder.make(tmp_path / "r", SHORT)
    found = results.load(made)
    found.sweep["claims"] = [
        {"id": "lower", "says": "0.01 ends lower", "metric": "test_loss", "is": "lower",
         "of": {"lr": 0.01}, "than": {"lr": 0.001}}
    ]  # fmt: skip
    (claim,) = summary.as_json(found)["claims"]
    assert claim["verdict"] == "supported" and claim["added_after"] and claim["n"] == 6
    assert matches(claim, summary.ClaimJson)
    ends = found.trials.pivot(index="seed", columns="lr", values="test_loss").astype(float)
    assert claim["detectable"] == pytest.approx(1.79 * (ends[0.01] - ends[0.001]).std(), rel=1e-6)


def test_table_columns_reach_old_readers() -> None:
    """Columns are added behind the old ones, none is renamed."""
    shipped = pd.read_parquet(ROOT / "analysis/data/mnist_lr_sensitivity/trials.parquet")
    from vitbench.records.rows import TRIAL_COLUMNS

    assert set(shipped.columns) <= set(TRIAL_COLUMNS)
