"""report.html: the results of a sweep as one page that needs no network."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vitbench.analysis import figures, page, summary
from vitbench.analysis.attention import figures as attention_figures
from vitbench.analysis.attention.findings import without_attention
from vitbench.analysis.data_size import figures as data_size_figures
from vitbench.analysis.figure_spec import Drawn
from vitbench.analysis.findings import settings
from vitbench.analysis.findings.arms import in_words, named_trials, names_of, shape_names
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.limits import limits
from vitbench.analysis.findings.render import claim_sentence, sentence, spelled_out
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.learning_rate import by_rate
from vitbench.analysis.learning_rate import sensitivity as lr_sensitivity
from vitbench.analysis.learning_rate.findings import no_sensitivity
from vitbench.analysis.page import Embedder, Picture, number
from vitbench.analysis.report import latex, paper, svg_curves
from vitbench.analysis.report.latex import Table, ends, value
from vitbench.analysis.report.verdict import main_figure, verdict
from vitbench.analysis.results import Results, load
from vitbench.analysis.time_to_target import numbers as speed
from vitbench.records.files import write_atomically
from vitbench.records.history import Spent
from vitbench.records.rows import STATUSES
from vitbench.records.tables import LEDGER
from vitbench.words import duration, slug

NAME = "report.html"
MAX_ROWS = 2000
# A page that is watched shows less of a larger sweep, so that it is made in seconds.
GLANCE_TRIALS, _GLANCE_ROWS, _GLANCE_PANELS = 1000, 100, 3
_MAX_ARMS = 60
_RESULT_COLUMNS = {
    "status": "state",
    "epochs": "epochs",
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "test_loss": "test loss",
    "val_accuracy": "validation accuracy",
    "test_accuracy": "test accuracy",
    "best_epoch": "best epoch",
    "best_val_loss": "lowest validation loss",
    "wall_s": "wall s",
}


def draw_and_write(folder: Path, target: float | None = None) -> list[Path]:
    """Draw every figure of a results folder and write its report; the report is the last path.

    The target is the validation accuracy to time the arms by; the sweep's own if left out.
    """
    return draw_and_write_opened(load(folder, target))


def draw_and_write_opened(results: Results) -> list[Path]:
    """The same for results that are open, which keep what is computed from them."""
    drawn = figures.draw_all(results)
    return [*(path for one in drawn for path in one.paths), write(results, drawn)]


def write(results: Results, drawn: Sequence[Drawn]) -> Path:
    """Write report.html; it holds the pictures, and links to their PNG, PDF and CSV beside it."""
    path = results.folder / NAME
    write_atomically(path, text_of(results, drawn))
    return path


def text_of(results: Results, drawn: Sequence[Drawn], live: str = "") -> str:
    """The page as text.

    Args:
        results: of the sweep.
        drawn: its figures, as far as they are drawn.
        live: version of a page that is served while the sweep runs (report.live).
    """
    glance = bool(live) and len(results.trials) > GLANCE_TRIALS
    content = _at_a_glance(results, drawn) if glance else _content(results, drawn)
    return page.render("report.html", {**content, "live": live})


def write_latex(folder: Path, target: float | None = None) -> list[Path]:
    """Write every table of the report as LaTeX into `<folder>/latex`; returns the files."""
    results = load(folder, target)
    return latex.write(results, _latex_tables(results))


def _latex_tables(results: Results) -> list[Table]:
    """The tables of the report, with the columns that a paper has room for."""
    grid, times = results.is_grid, speed.times_of(results)
    rates = grid and results.trials["lr"].nunique() > 1
    verdicts = [
        vars(verdict) | {"id": verdict.claim.id} for verdict in summary.summarise(results).claims
    ]
    pairs = [
        vars(pair) | {"mean": pair.difference.mean, "n": pair.difference.n}
        | dict(zip(("low", "high"), pair.difference.ends, strict=True))
        for pair in settings.judged_pairs(results)[:MAX_ROWS]
    ]  # fmt: skip
    trials = _trial_table(results, MAX_ROWS)
    of_trials = [
        dict(zip(trials["heads"], [text for text, _ in row["cells"]], strict=True))
        for row in trials["rows"]
    ]
    budget = [dict(zip(("what", "planned", "used"), row, strict=True)) for row in _budget(results)]
    arrivals = [] if times is None else speed.by_arm(times).head(_MAX_ARMS).to_dict("records")
    made = Table.of
    return [
        made("claims", "Claims stated before the run", verdicts, {
            "claim": value("id"), "verdict": value("verdict"), "effect": value("effect"),
            "95 % interval": ends("low", "high"), "adjusted p": value("p_adjusted", 2),
            "n": value("n"),
        }),
        *latex.of_sizes(results),
        made("by_rate", "Means over seeds by learning rate, half a 95 % t interval beside them",
             by_rate.table(results, MAX_ROWS), {
            "model": value("model"), "learning rate": value("lr"), "seeds": value("seeds"),
            "diverged": value("diverged"),
            **{_RESULT_COLUMNS[name]: latex.mean(name) for name in by_rate.METRICS},
        }),
        made("learning_rate", "Sensitivity S to the learning rate",
             _sensitivity_rows(results) if rates else [], {
            "model": value("cell"), "best rate": value("best_lr"),
            "lowest loss": value("best_loss"), "S": value("s_trapz"),
            "95 % interval": ends("s_trapz_low", "s_trapz_high"),
            "safe window": ends("safe_low", "safe_high", 2),
        }),
        made("labels", "Label difficulty, each label at its own best settings",
             labels.table(results), {
            "label": value("label"), "base rate": value("train_base_rate"),
            "BCE": value("test_bce"), "NCE": value("nce"), "floor": value("floor"),
            "excess": value("excess"),
            "AP above chance": value("ap_norm"), "AUC": value("roc_auc"), "MCC": value("mcc"),
            "accuracy": value("test_accuracy"), "majority": value("majority_rate"),
        }),
        made("pairs", "Test loss of settings in pairs, seed by seed", pairs, {
            "higher": value("a"), "lower": value("b"), "seeds": value("n"),
            "difference": value("mean"), "95 % interval": ends("low", "high"), "p": value("p", 2),
            "adjusted p": value("p_adjusted", 2),
        }),
        made("speed", f"Time to validation accuracy {results.target}", arrivals, {
            "setting": value("arm"), "models": value("trials"), "arrive": value("reached"),
            "epochs": value("epochs"), "seconds": value("seconds"),
        }),
        made("attention", "Lift of attention on a region",
             attention_figures.table(results.folder), {
            "better than chance": lambda row: "yes" if row["beats_chance"] else "no",
            "trial": value("trial_id"), "label": value("label"), "map": value("method"),
            "region": value("region"), "lift": value("mean"), "95 % interval": ends("low", "high"),
            "margin": value("margin", 2),
        }),
        made("trials", "Trials, the lowest validation loss first", of_trials,
             {head: value(head) for head in trials["heads"]}),
        made("budget", "Planned and used", budget,
             {head: value(head) for head in ("what", "planned", "used")}),
    ]  # fmt: skip


def _at_a_glance(results: Results, drawn: Sequence[Drawn]) -> dict[str, Any]:
    """The page without what compares every setting with every other, and with fewer curves."""
    told = Finding("left_to_the_end", n=len(results.trials))
    lead = main_figure(drawn)
    return {
        **_head(results, Embedder(), lead, _GLANCE_ROWS, _GLANCE_PANELS),
        "verdict": [sentence(told)],
        "claims": [],
        "findings": [sentence(told)],
        "found": 1,
        "limits": [sentence(limit) for limit in limits(results)],
        "figures": {spec.section: [] for spec in figures.FIGURES},
        **{name: [] for name in ("sensitivity", "pairs", "sizes", "labels", "speed")},
        **{name: [] for name in ("plates", "looks", "spread")},
    }


def _head(
    results: Results, embedder: Embedder, lead: Drawn | None, rows: int, panels: int
) -> dict[str, Any]:
    """What every page has, and what is made in no time however large the sweep is."""
    grid, counts = results.is_grid, results.trials["status"].value_counts()
    return {
        "name": results.sweep["name"],
        "description": results.sweep.get("description", ""),
        "subtitle": results.subtitle,
        "partial": results.partial,
        "lead": lead and embedder.of(lead),
        "rates": by_rate.table(results, rows),
        "chart": svg_curves.of_grid(results, panels) if grid else None,
        "target": results.target,
        "search": None if grid else results.sweep["search"],
        "trials": _trial_table(results, rows),
        "states": [(s, counts[s], meaning) for s, meaning in STATUSES.items() if s in counts],
        "budget": _budget(results),
        "provenance": _provenance(results),
    }


def _content(results: Results, drawn: Sequence[Drawn]) -> dict[str, Any]:
    embedder = Embedder()
    rates = results.is_grid and results.trials["lr"].nunique() > 1
    conclusions, arms = summary.summarise(results), speed.arms_of(results)
    kinds = ("spread_association", "attention_by_lr")
    spread = [finding for finding in conclusions.findings if finding.kind in kinds]
    lead = main_figure(drawn)
    return {
        **_head(results, embedder, lead, MAX_ROWS, svg_curves.MAX_PANELS),
        "verdict": verdict(conclusions),
        "claims": [(verdict, claim_sentence(verdict)) for verdict in conclusions.claims],
        "findings": summary.sentences(results),
        "found": len(summary.listed(results)),
        "limits": [sentence(limit) for limit in conclusions.limits],
        "figures": embedder.by_section(figures.FIGURES, [one for one in drawn if one is not lead]),
        "sensitivity": _sensitivity_rows(results) if rates else [],
        "pairs": settings.judged_pairs(results)[:MAX_ROWS],
        "sizes": data_size_figures.table(results).to_dict("records"),
        "labels": labels.table(results),
        "speed": [] if arms is None else arms.head(_MAX_ARMS).to_dict("records"),
        "plates": _plates(results, embedder),
        "looks": attention_figures.table(results.folder),
        "spread": [sentence(finding) for finding in spread],
    }


def _plates(results: Results, embedder: Embedder) -> list[Picture]:
    """Plates of attention maps, where `vitbench.attention` has written them; the best first."""
    trials = named_trials(results).sort_values("best_val_loss", kind="stable")
    folder, pictures = results.folder / "attention", []
    silent = set(without_attention(results)["trial_id"])
    by_slug = {slug(name): name for name in results.labels["label"].astype(str)}
    written: dict[str, list[Path]] = defaultdict(list)
    for png in sorted(folder.glob("plate_*.png")):
        written[png.stem.split("_")[1]].append(png)
    for row in trials.itertuples():
        for png in written[str(row.trial_id)]:
            label = png.stem.removeprefix(f"plate_{row.trial_id}").removeprefix("_")
            label = by_slug.get(label, label)
            parts = [] if row.arm == "all" else [spelled_out(str(row.arm))]
            parts += [f"label {label}"] if label else []
            of = "Input gradient" if row.trial_id in silent else "Attention"
            title = f"{of} of {', '.join([*parts, f'seed {row.seed}'])}"
            shown = Finding("drawn_plate", facts={"title": title})
            pictures.append(embedder.picture(title, sentence(shown), [png]))
    if (photos := folder / "plate_photos.png").is_file():
        title = "Attention on pictures of your own"
        shown = Finding("drawn_plate", facts={"title": title})
        pictures.append(embedder.picture(title, sentence(shown), [photos]))
    return pictures


def _sensitivity_rows(results: Results) -> list[dict[Any, Any]]:
    """A row per model with its settings in words; none for a single model."""
    names = shape_names(results)
    rows = lr_sensitivity.table(results.trials, names).to_dict("records")
    for row in rows:
        row["cell"] = in_words(names, (row[name] for name in names))
        row["why_not"] = row["why_not"] and sentence(no_sensitivity(row))
    return rows if len(rows) > 1 else []


def _trial_table(results: Results, most: int) -> dict[str, Any]:
    """The trials, best first; what does not fit is in trials.csv."""
    names = [*names_of(results), "seed"]
    ordered = results.trials.sort_values("best_val_loss", na_position="last", kind="stable")
    rows = []
    for row in ordered.head(most).to_dict("records"):
        cells = [(number(row[name], 6), _sort_key(row[name])) for name in names]
        cells += [(number(row[name]), _sort_key(row[name])) for name in _RESULT_COLUMNS]
        reason = "" if pd.isna(row["error"]) else str(row["error"])
        gone = None if pd.isna(row["diverged_epoch"]) else row["diverged_epoch"]
        rows.append({"id": row["trial_id"], "cells": cells, "reason": reason, "gone": gone})
    heads = [*(name.replace("_", " ") for name in names), *_RESULT_COLUMNS.values()]
    return {"heads": heads, "rows": rows, "left_out": max(0, len(ordered) - most)}


def _sort_key(value: Any) -> str:
    if pd.isna(value):
        return ""
    return repr(float(value)) if isinstance(value, int | float) else str(value)


def _budget(results: Results) -> list[tuple[str, str, str]]:
    """What was planned, and what was used: (quantity, planned, used)."""
    trials, limits = results.trials, results.sweep.get("budget", {})
    what, asked = "models", len(trials)
    if not results.is_grid:
        what, asked = "suggestions", results.sweep["search"]["suggestions"]
    done = int(trials["status"].isin(["finished", "stopped", "diverged"]).sum())
    planned_epochs = int(trials["planned_epochs"].sum())
    rows = [
        (what, f"{asked:,}", f"{done:,} models ended"),
        ("epochs of all models", f"{planned_epochs:,}", f"{len(results.epochs):,}"),
    ]
    ledger = results.folder / LEDGER
    if ledger.is_file():
        hours = limits.get("hours")
        limit = f"{hours:g} h" if hours else "no limit"
        spent = Spent(ledger) if results.growing is None else results.growing.spent
        rows.append(("wall-clock time", limit, duration(spent.seconds())))
        rows.append(("stacks' training time together", "–", duration(_trained_s(results))))
    texts = {"gpu_hours": "GPU hours", "models": "models (limit)", "epochs": "epochs (limit)"}
    limited = [(text, limits.get(key)) for key, text in texts.items()]
    return rows + [(text, f"{limit:g}", "see above") for text, limit in limited if limit]


def _trained_s(results: Results) -> float:
    """Seconds of training of all stacks; an epoch that its members trained together counts once."""
    epochs = results.epochs
    trial_N, trial_ids = pd.factorize(epochs["trial_id"])
    stack_ids = results.trials.set_index("trial_id")["stack_id"].reindex(trial_ids)
    stack_N = pd.factorize(stack_ids)[0][trial_N]
    once = ~pd.DataFrame({"stack": stack_N, "epoch": epochs["epoch"]}).duplicated()
    return float(epochs.loc[once, "epoch_s"].sum())


def _precision(env: Mapping[str, Any]) -> dict[str, str]:
    """What `train.precision: auto` was decided to be, where a sweep left it open."""
    decided = env.get("decided", {})
    if "precision" not in decided:
        return {}
    return {"precision": f"{decided['precision']} ({decided['because']})"}


def _provenance(results: Results) -> dict[str, Any]:
    """Versions, hardware, commit, checksum, and the command that runs it again."""
    env = results.environment
    known = defaultdict(lambda: "?", env)
    commit = env.get("git_commit") or "not from a git checkout"
    versions = {"vitbench": known["vitbench"], "Python": known["python"], **env.get("packages", {})}
    memory, gpus = f"{known['memory_gib']} GiB memory", ", ".join(env.get("gpus", [])) or "no GPU"
    facts = {
        "images": env.get("image_source", results.dataset),
        "data checksum": known["data_checksum"],
        "commit": f"{commit}{' with uncommitted changes' if env.get('git_dirty') else ''}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "hardware": f"{known['cpu']}, {known['cpus']} CPUs, {memory}, {gpus}",
        **_precision(env),
        "system": known["platform"],
        "started": known["time_utc"],
    }
    told = {"name": results.sweep["name"], "subtitle": results.subtitle}
    told |= {"version": known["vitbench"], "commit": str(env.get("git_commit") or "")[:12]}
    return {
        "facts": facts.items(),
        "command": shlex.join(map(str, env.get("command", []))),
        "caption": sentence(Finding("caption", facts=told)),
        "bibtex": paper.bibtex(env),
    }
