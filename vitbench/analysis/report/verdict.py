"""The report's first page: what was found, with intervals, and what it cannot tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd

from vitbench.analysis import statistics
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.render import sentence
from vitbench.analysis.labels import findings as label_findings
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.learning_rate import sensitivity as lr_sensitivity
from vitbench.analysis.learning_rate import words as lr_words
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.search import findings as search
from vitbench.analysis.statistics import varying
from vitbench.analysis.time_to_target import findings as time_to_target

_MAX_SENTENCES = 6
_MORE_SETTINGS = ("weight_decay", "dropout", "schedule", "image_size", "train_images")


@dataclass
class Verdict:
    """Sentences: what was found, and what these results cannot say."""

    findings: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)


def arm_names(trials: pd.DataFrame) -> list[str]:
    """The settings other than the seed in which the trials differ: together they make an arm."""
    names = varying(trials)
    names += [n for n in _MORE_SETTINGS if n in trials and trials[n].nunique(dropna=False) > 1]
    return (["lr"] if trials["lr"].nunique() > 1 else []) + names


def ended(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials with an end of their own, with `loss`: validation loss, l0 where it diverged."""
    frame = trials.assign(loss=lr_sensitivity.capped_loss(trials))
    return frame.dropna(subset=["loss"])


def compares_labels(results: Results) -> bool:
    """Whether models learned different labels, whose losses are not comparable as they stand."""
    return not labels.chosen(results).empty


@computed_once
def paired_table(results: Results) -> pd.DataFrame:
    """Every arm against the best one in test loss; empty with a single seed or a single arm.

    Where labels are compared: every label against every other in normalised cross entropy.
    """
    if compares_labels(results):
        rows = [
            {"arm": pair.a, "against": pair.b, "pairs": pair.difference.n, "missing": 0,
             "difference": pair.difference.mean, "low": pair.difference.low,
             "high": pair.difference.high, "p": pair.p_adjusted,
             "claim": "greater" if pair.told_apart else "none"}
            for pair in labels.pairs(labels.chosen(results))
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=list(statistics.PAIRED_COLUMNS))
    frame = ended(results.trials)
    names = arm_names(results.trials)
    if frame.empty or not names or frame["seed"].nunique() < 2:
        return pd.DataFrame(columns=list(statistics.PAIRED_COLUMNS))
    return statistics.against_best(frame, names, "test_loss", choose_by="loss")


def verdict(results: Results, paired: pd.DataFrame) -> Verdict:
    """All that the tables support, the best arm first."""
    said = Verdict()
    trials = results.trials
    frame = ended(trials)
    if frame.empty:
        said.findings.append("No trial has come to its end yet, so there is nothing to compare.")
    else:
        if compares_labels(results):
            said.findings += map(sentence, label_findings.findings(results))
            said.limits += map(sentence, label_findings.limits(results))
            if results.dataset == "faces":
                said.limits.append(sentence(Finding("limit_faces")))
        else:
            _best(results, frame, said)
            _pairs(paired, said)
        if results.sweep["search"]["method"] == "grid":
            _learning_rate(results, said)
        for topic in (search, time_to_target):
            said.findings += [sentence(finding) for finding in topic.findings(results)]
            said.limits += [sentence(limit) for limit in topic.limits(results)]
    gone = trials["status"].value_counts()
    for status, what in (
        ("diverged", "diverged"),
        ("crashed", "crashed"),
        ("oom", "ran out of memory"),
    ):
        if gone.get(status, 0):
            said.findings.append(f"{gone[status]} of {len(trials)} models {what}.")
    _limits(results, frame, paired, said)
    return said


def _best(results: Results, frame: pd.DataFrame, said: Verdict) -> None:
    names = arm_names(results.trials)
    arms = statistics.arm_labels(frame, names)
    means = frame["loss"].groupby(arms, sort=False).mean()
    best = str(means.idxmin())
    arm = frame[arms == best]
    loss, accuracy = (_mean(arm[c]) for c in ("loss", "test_accuracy"))
    few = " that ran to an end" if len(frame) < len(results.trials) else ""
    who = (
        f"Of {len(means)} settings{few} the best is {best}" if len(means) > 1 else "The one setting"
    )
    said.findings.append(
        f"{who}: validation loss {loss} at the last epoch, test accuracy {accuracy}, "
        f"over {len(arm)} seed{'s' if len(arm) != 1 else ''}. "
        f"It was chosen by validation loss; the test images had no say."
    )


def _mean(values: pd.Series) -> str:
    if values.isna().all():
        return "not measured"
    found = statistics.mean_interval(values.to_numpy(dtype=float))
    if found.low is None or found.high is None:
        return f"{found.mean:.4g} (no interval: fewer than three seeds)"
    return f"{found.mean:.4g} (95 % interval {found.low:.4g} to {found.high:.4g})"


def _pairs(paired: pd.DataFrame, said: Verdict) -> None:
    if paired.empty:
        return
    tested = paired[paired["p"].notna()]
    worse = paired[paired["claim"] == "greater"]
    if tested.empty:
        said.findings.append(
            "No setting is claimed to be better than another: fewer than three seeds."
        )
        return
    pairs = int(tested["pairs"].max())
    text = (
        f"Paired over seeds, {len(worse)} of {len(paired)} other settings are worse in test loss "
        f"at p < 0.05 (exact sign-flip test, {pairs} pairs"
    )
    if pairs < 6:
        text += f"; with {pairs} pairs p is never below {2 / 2**pairs:g}, so no claim is possible"
    said.findings.append(text + ").")
    open_ones = paired[(paired["claim"] == "none") & (paired["missing"] == 0)]
    if len(worse) and len(open_ones):
        named = "; ".join(open_ones["arm"].head(4))
        said.findings.append(f"Not told apart from the best: {named}.")


def _learning_rate(results: Results, said: Verdict) -> None:
    trials = results.trials
    if trials["lr"].nunique() < 2:
        return
    names, table = varying(trials), lr_sensitivity.by_model(results)
    sentences = lr_words.sentences(table, names)
    said.findings += [text[0].upper() + text[1:] for text in sentences[:_MAX_SENTENCES]]
    if len(sentences) > _MAX_SENTENCES:
        said.findings.append(f"{len(sentences) - _MAX_SENTENCES} more models are in the table.")
    movement = lr_words.movement(table, names)
    if movement:
        said.findings.append(movement)
    for setting in names if len(names) == 1 else []:
        text = lr_words.standing_sentence(lr_words.standing(trials, results.epochs, setting))
        if text:
            said.findings.append(text)


def _limits(results: Results, frame: pd.DataFrame, paired: pd.DataFrame, said: Verdict) -> None:
    trials, train = results.trials, results.sweep["train"]
    if results.partial:
        waiting = int(trials["status"].isin(["planned", "running"]).sum())
        said.limits.append(f"The sweep is not complete: {waiting} trials have no end yet.")
    seeds = int(frame["seed"].nunique()) if not frame.empty else 0
    if seeds < statistics.MIN_SEEDS:
        said.limits.append(
            f"{seeds} seed{'s' if seeds != 1 else ''}: how far these numbers would move with "
            f"other initial weights is unknown, so no interval is printed and nothing is claimed. "
            f"--seeds 6 repeats the sweep with six."
        )
    elif seeds < 6:
        said.limits.append(
            f"{seeds} seeds give intervals but can never reach p < 0.05; six can (--seeds 6)."
        )
    scale = results.environment.get("scale", "paper")
    if scale != "paper":
        images = trials["train_images"].dropna().max()
        epochs = trials["planned_epochs"].dropna().max() if "planned_epochs" in trials else math.nan
        said.limits.append(
            f"Scale {scale}: at most {images:,} training images and {epochs} epochs. Which "
            f"learning rate or shape wins after few updates need not win after many."
        )
    source = str(results.environment.get("image_source", results.dataset))
    if results.dataset == "digits":
        said.limits.append(
            f"The images are {source}, not MNIST: an easier and far smaller set, of which only "
            f"the direction of effects can be carried over."
        )
    val, test = (train.get(f"{split}_images") for split in ("val", "test"))
    if val and test and min(val, test) < 2000:
        points = 100 * 1.96 * math.sqrt(0.09 / min(val, test))
        said.limits.append(
            f"With {val:,} validation and {test:,} test images an accuracy near 90 % is known to "
            f"about {points:.1f} points by chance of the images alone; intervals over seeds do "
            f"not contain that."
        )
    of_labels = compares_labels(results)
    if len(paired) > 1 and paired["p"].notna().any() and not of_labels:
        said.limits.append(
            f"{len(paired)} comparisons with the best, which was picked on the same seeds: each p "
            f"is for one comparison, and about {0.05 * len(paired):.1f} of them would fall below "
            f"0.05 without any difference."
        )
    if (trials["status"] == "stopped").any():
        said.limits.append(
            "Trials that the scheduler stopped early might have won later: their curves are "
            "censored and their losses are those of fewer epochs."
        )
    if of_labels:
        return
    said.limits.append(
        "Losses at the last epoch are compared. A setting that is best earlier and overfits "
        "is judged by where it ends."
    )
