"""What a results folder is, told without the libraries that read one."""

from __future__ import annotations

from pathlib import Path

from vitbench.errors import UserError


def require_results(*folders: Path) -> None:
    """Refuse what holds no results of a sweep.

    Raises:
        UserError: naming the first such folder.
    """
    for folder in folders:
        tables = (folder / "ledger.jsonl", folder / "trials.parquet")
        if not (folder / "sweep.yaml").is_file() or not any(table.is_file() for table in tables):
            raise UserError(
                f"{folder}: holds no results of a sweep (no sweep.yaml with ledger.jsonl or "
                f"trials.parquet); name a folder such as results/mnist_lr/20260101-120000-ab12"
            )
