"""What a sweep over learning rates says, in sentences with their intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from vitbench.analysis.learning_rate import sensitivity as lr_sensitivity
from vitbench.analysis.statistics import in_words

PAPER_RATES = (0.003, 0.0003, 0.00003)
PAPER_WORST_LR = 0.003  # the one that the paper finds slowest, and stuck at a high loss


def sentences(table: pd.DataFrame, names: list[str]) -> list[str]:
    """One sentence on S and the safe window per row of lr_sensitivity.table, with its warnings."""
    said = []
    for row in table.to_dict("records"):
        cell = _cell(row, names)
        where = f"{cell}: " if cell else ""
        if not math.isfinite(row["best_lr"]):
            said.append(f"{where}nothing to say of the learning rate: {row['why_not']}.")
            continue
        text = f"{where}the best learning rate of {row['rates']} is {row['best_lr']:g}"
        text += f" (mean validation loss {row['best_loss']:.4g} over {_seeds(row['seeds'])}"
        if row["seeds"] >= 3:
            text += f"; it is the best of {row['agree']} of the {row['seeds']} seeds"
        text += "). "
        text += _sensitivity(row) if not row["why_not"] else f"No S: {row['why_not']}. "
        if row["boundary"]:
            side = "lowest" if row["boundary"] == "low" else "highest"
            text += f"WARNING: that is the {side} rate tried, so a better one may lie beyond. "
        if row["left_out"]:
            text += f"{row['left_out']} trials or seeds without an end everywhere are left out. "
        said.append(text.strip())
    return said


def _sensitivity(row: Mapping[Hashable, Any]) -> str:
    spread = (
        f" (95 % interval {row['s_trapz_low']:.3g} to {row['s_trapz_high']:.3g})"
        if math.isfinite(row["s_trapz_low"])
        else " (no interval: fewer than three seeds)"
    )
    text = (
        f"Over [{row['low_lr']:g}, {row['high_lr']:g}] the sensitivity S is "
        f"{row['s_trapz']:.3g} nats by the trapezoid{spread} and {row['s_grid']:.3g} on the "
        f"grid. "
    )
    open_low, open_high = row["safe_open"] in ("low", "both"), row["safe_open"] in ("high", "both")
    text += (
        f"The loss stays within {row['delta']:g} nats of the best from "
        f"{row['safe_low']:.2g}{' or lower' if open_low else ''} to {row['safe_high']:.2g}"
        f"{' or higher' if open_high else ''}, "
        f"{'at least ' if row['safe_open'] else ''}{row['safe_decades']:.2g} decades. "
    )
    if math.isfinite(row["edge_lr"]):
        text += (
            f"Between {row['last_good_lr']:g} and {row['edge_lr']:g} lies the edge: at and above "
            f"the latter some seed diverges or learns nothing. "
        )
    return text


def movement(table: pd.DataFrame, names: list[str]) -> str:
    """Whether the best learning rate moves between models; empty for a single model."""
    known = table.dropna(subset=["best_lr"])
    if len(known) < 2 or not names:
        return ""
    cells = [f"{row['best_lr']:g} at {_cell(row, names)}" for row in known.to_dict("records")]
    if known["best_lr"].nunique() == 1:
        text = f"The best learning rate does not move: it is {known['best_lr'].iloc[0]:g} "
        text += f"for all {len(known)} models."
    else:
        text = f"The best learning rate moves: {'; '.join(cells)}."
    if (known["seeds"] < 3).any():
        text += " With fewer than three seeds a step of one rate is no finding."
    elif (known["agree"] < known["seeds"]).any():
        text += " Not all seeds agree on it, so a step of one rate is weak evidence."
    return text


def standing(
    trials: pd.DataFrame, epochs: pd.DataFrame, setting: str, lr: float = PAPER_WORST_LR
) -> pd.DataFrame:
    """Where one learning rate stands among the paper's three, for each value of a setting.

    Where the sweep lacks one of the three, it stands among all that were tried.

    Columns: `setting`'s name, `rates`, `loss`, `loss_rank` (1 is the lowest final validation
    loss), `speed_rank` (1 is the lowest mean of the validation loss over all epochs, the area
    under the learning curve), `worst_seeds` and `seeds` (seeds in which it has the highest loss).
    """
    frame = trials.assign(loss=lr_sensitivity.capped_loss(trials))
    if set(PAPER_RATES) <= set(frame["lr"]):
        frame = frame[frame["lr"].isin(PAPER_RATES)]
    curve = epochs.merge(trials[["trial_id", "initial_val_loss"]], on="trial_id")
    # NaN compares false, so a diverged epoch counts as the loss before training.
    seen = curve["val_loss"].astype(float)
    curve["area"] = seen.where(seen < curve["initial_val_loss"], curve["initial_val_loss"])
    frame = frame.merge(curve.groupby("trial_id")["area"].mean().reset_index(), on="trial_id")
    rows = []
    for value, part in frame.dropna(subset=["loss"]).groupby(setting, sort=True):
        loss, area = (part.groupby("lr")[name].mean() for name in ("loss", "area"))
        if lr not in loss.index or len(loss) < 2:
            continue
        by_seed = part.pivot_table(index="seed", columns="lr", values="loss").dropna()
        rows.append(
            {
                setting: value,
                "rates": len(loss),
                "loss": float(loss[lr]),
                "loss_rank": int((loss <= loss[lr]).sum()),
                "speed_rank": int((area <= area[lr]).sum()),
                "worst_seeds": int((by_seed.idxmax(axis="columns") == lr).sum()),
                "seeds": len(by_seed),
            }
        )
    return pd.DataFrame(rows)


def standing_sentence(table: pd.DataFrame, lr: float = PAPER_WORST_LR) -> str:
    """In words: where the learning rate is the worst, and where it is the fastest."""
    if table.empty:
        return ""
    setting = str(table.columns[0])
    parts = []
    for row in table.to_dict("records"):
        rates = int(row["rates"])
        final = _place(int(row["loss_rank"]), rates, "best", "worst")
        speed = _place(int(row["speed_rank"]), rates, "fastest", "slowest")
        votes = f"{int(row['worst_seeds'])} of {_seeds(int(row['seeds']))}"
        parts.append(
            f"at {setting.replace('_', ' ')} {row[setting]} it is the {final} of {rates} rates "
            f"at the end (loss {row['loss']:.3g}; worst in {votes}) and the {speed}"
        )
    worst = table[table["loss_rank"] == table["rates"]]
    among = " among the paper's three" if (table["rates"] == len(PAPER_RATES)).all() else ""
    text = f"Learning rate {lr:g}{among}: " + "; ".join(parts) + ". "
    if len(worst) == len(table):
        return text + "It is the worst everywhere here, as the paper has it."
    if worst.empty:
        return text + "It is nowhere the worst here, unlike in the paper."
    held = ", ".join(str(v) for v in worst[setting])
    freed = ", ".join(str(v) for v in table.loc[table["loss_rank"] < table["rates"], setting])
    return text + (
        f"The paper's claim that it stays at a high loss holds at {setting.replace('_', ' ')} "
        f"{held} and no longer at {freed}."
    )


def _place(rank: int, of: int, first: str, last: str) -> str:
    if rank == 1:
        return first
    if rank == of:
        return last
    return f"{rank}{ {2: 'nd', 3: 'rd'}.get(rank, 'th') } {first}"


def _cell(row: Mapping[Hashable, Any], names: list[str]) -> str:
    return in_words(names, (row[name] for name in names))


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"
