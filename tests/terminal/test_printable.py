"""Names of labels and files, in one place each for terminals and files."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console

from vitbench.plan.names import value_text
from vitbench.terminal.outcome_table import outcome_table
from vitbench.words import printable, slug

ODD = [
    "a/b",
    "x" * 300,
    "$x^$",
    "[/b]",
    "\x1b[31mred",
    "../up",
    "",
    ".",
    "a\nb",
    "ä",
    "-",
]


@pytest.mark.parametrize("name", ODD)
def test_a_slug_is_a_files_name_and_tells_names_apart(name: str) -> None:
    """One part of a path, short, printable; a plain name is itself."""
    made = slug(name)
    assert 0 < len(made) <= 60 and "/" not in made and made.isprintable()
    assert made not in (".", "..") and made != slug(name + "?")
    assert slug("Smiling") == "Smiling"


@pytest.mark.parametrize("name", ODD)
def test_no_terminal_acts_on_a_name(name: str) -> None:
    """Neither escapes nor rich's markup, and the table is drawn."""
    assert printable(name).isprintable() and value_text(name) == printable(name)
    frame = pd.DataFrame(
        {"label": [name], "status": ["finished"], "trial_id": ["t"], "best_val_loss": [1.0]}
    )
    console = Console(file=io.StringIO(), width=500, force_terminal=False)
    console.print(outcome_table(frame, ["label"], "title", width=500))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert printable(name) in shown and "\x1b" not in shown
