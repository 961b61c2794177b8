"""`claims` of a sweep file: what is refused, and what stays the same when it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitbench.config import ConfigError, Sweep, load_sweep, resolved_yaml
from vitbench.errors import UserError
from vitbench.plan import expand
from vitbench.plan.resume import check_same

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))
FILE = """\
name: stated
dataset: {name: faces, labels: [Smiling, Eyeglasses]}
search:
  space:
    lr: [0.001, 0.01]
    label: [Smiling, Eyeglasses]
    seed: [0, 1, 2, 3, 4, 5]
claims:
  - {id: a, says: A, metric: train_loss, of: {lr: 0.01}, is: highest}
"""
CLAIM = "{id: a, says: A, metric: train_loss, of: {lr: 0.01}, is: highest}"


def load(tmp_path: Path, text: str, *overrides: str) -> Sweep:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return load_sweep(path, overrides=overrides)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.lines]


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("{metric: train_loss, of: {lrr: 0.01}, is: highest}",
         "of.lrr: does not vary in this sweep; did you mean 'lr'?"),
        ("{metric: train_loss, of: {lr: 0.02}, is: highest}",
         "of.lr=0.02: is not among the values of lr in this sweep; use one of 0.001, 0.01"),
        ("{metric: train_loss, of: {seed: 1}, is: highest}", "of.seed: seeds are pairs"),
        ("{metric: train_loss, of: {lr: 0.01}, is: highest, where: {labl: Smiling}}",
         "where.labl: does not vary in this sweep; did you mean 'label'?"),
        ("{metric: train_loss, of: {lr: 0.01}, is: highest, where: {lr: 0.01}}",
         "where.lr: is what the claim compares"),
        ("{metric: train_loss, of: {lr: 0.01}, is: higher}", "than: higher needs the arm"),
        ("{metric: train_loss, of: {lr: 0.01}, is: at_most}",
         "value: at_most needs a number to compare with; add `value: 0.9`"),
        ("{metric: train_loss, of: {lr: 0.01}, is: highest, value: 1}",
         "value=1: belongs to at_least and at_most, not to highest"),
        ("{metric: train_loss, of: {lr: 0.01}, is: at_least, value: 1, margin: 1}",
         "margin=1: is what `value` already says"),
        ("{metric: train_loss, of: {lr: 0.01}, is: at_least, value: 1, tuned: lr}",
         "tuned=lr: is named by the claim, so there is nothing to choose"),
        ("{metric: train_loss, of: {lr: 0.01}, is: at_least, value: 1, tuned: weight_decay}",
         "tuned=weight_decay: does not vary in this sweep"),
        ("{metric: train_loss, of: {lr: 0.01}, is: higher, than: {lr: 0.1}}",
         "than.lr=0.1: is not among the values"),
        ("{metric: train_loss, of: {lr: 0.01}, is: higher, than: {label: Smiling}}",
         "of: all arms of a claim name the same settings"),
        ("{metric: train_loss, of: {lr: 0.01}, is: higher, than: {lr: 0.01}}",
         "of: an arm stands twice"),
        ("{metric: train_loss, of: {lr: 0.01}, is: lowest, than: {lr: 0.001}}",
         "than: belongs to higher and lower, not to lowest"),
        ("{metric: train_loss, of: {lr: 0.01}, is: ordered}", "of: ordered needs a list"),
        ("{metric: train_loss, of: [{lr: 0.01}], is: ordered}", "of: ordered needs a list"),
        ("{metric: train_loss, of: [{lr: 0.01}, {lr: 0.001}], is: highest}",
         "of: highest is about one arm"),
        ("{metric: train_loss, is: highest}", "of: names no setting"),
        ("{metric: train_loss, is: associated}", "with_metric: is needed by associated"),
        ("{metric: nce, is: associated, with_metric: nce, over: lr}", "is the metric itself"),
        ("{metric: nce, is: associated, with_metric: train_loss, over: labl}",
         "over=labl: does not vary in this sweep; did you mean 'label'?"),
        ("{metric: nce, is: highest, of: {lr: 0.01}, over: lr}", "over=lr: belongs to associated"),
        ("{metric: trainloss, of: {lr: 0.01}, is: highest}", "did you mean 'train_loss'?"),
        ("{metric: train_loss, of: {lr: 0.01}, iss: highest}", "iss: there is no such key; did"),
        ("{metric: train_loss, of: {lr: 0.01}, relation: highest}", "is: is missing; add `is:`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, claim: str, message: str) -> None:
    """A claim that cannot be judged shows before days of training, not after."""
    found = problems(tmp_path, FILE.replace(CLAIM, "{id: a, says: A, " + claim[1:]))
    assert any(line.startswith("s.yaml:9: claims[0].") and message in line for line in found)


def test_all_claims_are_checked_at_once(tmp_path: Path) -> None:
    """Beside the problems of other sections, in the order of lines."""
    text = FILE.replace("seed: [0, 1,", "seed: [0, 0,") + (
        "  - {id: a, says: B, metric: train_loss, of: {lr: 0.01}, is: lowest}\n"
        "  - {id: c, says: C, metric: train_loss, of: {lr: 0.01}, is: higher}\n"
    )
    assert [line.split(": ")[0:2] for line in problems(tmp_path, text)] == [
        ["s.yaml:7", "search.space.seed[1]=0"],
        ["s.yaml:10", "claims[1].id=a"],
        ["s.yaml:11", "claims[2].than"],
    ]


def test_metrics_that_the_sweep_cannot_give_are_refused(tmp_path: Path) -> None:
    """Label measures need labels, spread needs the attention plates; with them they are taken."""
    of_labels = FILE.replace("metric: train_loss", "metric: nce")
    load(tmp_path, of_labels)
    without = of_labels.replace("    label: [Smiling, Eyeglasses]\n", "")
    assert "metric=nce: is of models that learn one label" in problems(tmp_path, without)[0]
    spread = FILE.replace("metric: train_loss", "metric: effective_patches")
    load(tmp_path, spread)
    off_line = "attention: {top: 0}\n"
    assert "metric=effective_patches: is measured" in problems(tmp_path, spread + off_line)[0]
    eyes = FILE.replace("metric: train_loss", "metric: eyes_lift")
    load(tmp_path, eyes)
    assert "metric=eyes_lift: is measured with the" in problems(tmp_path, eyes + off_line)[0]
    ink = FILE.replace("metric: train_loss", "metric: ink_lift")
    assert "metric=ink_lift: is of what is bright" in problems(tmp_path, ink)[0]
    extent = FILE.replace("metric: train_loss", "metric: extent")
    load(tmp_path, extent)
    photographs = extent.replace("name: faces", "name: celeba")
    assert "metric=extent: is known of drawn faces, not of" in problems(tmp_path, photographs)[0]


def test_regions_are_those_of_the_images(tmp_path: Path) -> None:
    """Eyes of faces, ink of digits, and no other way round."""
    text = FILE.replace("{name: faces, labels: [Smiling, Eyeglasses]}", "{name: digits}")
    text = text.replace("    label: [Smiling, Eyeglasses]\n", "").replace("train_loss", "ink_lift")
    load(tmp_path, text)
    eyes = text.replace("ink_lift", "eyes_lift")
    assert "metric=eyes_lift: is of a face's landmarks" in problems(tmp_path, eyes)[0]


def test_a_scale_without_a_claims_arm_is_refused(tmp_path: Path) -> None:
    """A claim at paper scale about an arm that the laptop leaves out."""
    scale = "scales:\n  laptop:\n    search: {space: {lr: [0.001], seed: [0]}}\n"
    (first,) = problems(tmp_path, FILE + scale)
    assert "scales.laptop.claims[0].of.lr=0.01: is not among" in first
    assert load(tmp_path, FILE, "search.space.lr=[0.001]", "claims=[]").claims == []


def test_a_claim_is_written_with_the_word_of_the_file(tmp_path: Path) -> None:
    """sweep.yaml of the results says `is`, loads to the same claims, with the same fingerprints."""
    sweep = load(tmp_path, FILE)
    written = resolved_yaml(sweep)
    assert "is: highest" in written and "relation" not in written
    again = load(tmp_path, written)
    assert again == sweep
    assert again.claims[0].fingerprint == sweep.claims[0].fingerprint
    changed = load(tmp_path, FILE.replace("is: highest}", "is: highest, margin: 0.1}"))
    assert changed.claims[0].fingerprint != sweep.claims[0].fingerprint


def test_claims_may_change_and_are_no_part_of_trials(tmp_path: Path) -> None:
    """A resume with other claims goes on with the same trials; the analysis marks what changed."""
    sweep = load(tmp_path, FILE)
    other = sweep.model_copy(update={"claims": []})
    assert [t.trial_id for t in expand(sweep)] == [t.trial_id for t in expand(other)]
    check_same(sweep, other, tmp_path)
    searched = FILE.replace("search:\n", "search:\n  method: random\n")
    sweep = load(tmp_path, searched)
    check_same(sweep, sweep.model_copy(update={"claims": []}), tmp_path)
    with pytest.raises(UserError, match="the sweep has changed"):
        check_same(sweep, sweep.model_copy(update={"target_accuracy": 0.5}), tmp_path)


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_shipped_sweeps_state_the_papers_claims(file: Path) -> None:
    """All but the search, which tests none of them; at every scale."""
    for scale in ("paper", "laptop"):
        sweep = load_sweep(file, scale=scale)
        assert bool(sweep.claims) == sweep.search.is_grid
