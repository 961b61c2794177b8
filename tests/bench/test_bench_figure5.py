"""The record of Figure 5: how much is run, how work is counted, what is written down."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vitbench.bench import figure5
from vitbench.bench.__main__ import main
from vitbench.bench.contest import Memory
from vitbench.config import Dataset

RECORD = Path(__file__).parents[2] / "benchmarks" / "RECORD.md"


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(1.0, (200, 50_000, 10_000)), (0.1, (20, 50_000, 10_000)), (0.0005, (1, 5_000, 1_000))],
)
def test_a_fraction_is_of_the_epochs_then_of_the_images(
    fraction: float, expected: tuple[int, int, int]
) -> None:
    """A part of the record must be the same work, less often."""
    assert figure5.part(fraction) == expected


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", None),  # no A10
        ("NVIDIA L40S", 362),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("Intel(R) Xeon(R) Processor, 2 cores", None),
    ],
)
def test_utilisation_refers_to_the_card_that_is_there(card: str, peak: float | None) -> None:
    """A card that is not known has none: another one's peak would make any number of it."""
    assert figure5.peak_tflops(card) == peak


def test_the_record_runs_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three rates train for an epoch; time, rate and utilisation agree with each other."""
    argv = ["figure5", "--quick", "--device", "cpu", "--fraction", "2e-6", "--peak-tflops", "0.001"]
    assert main([*argv, "--batch-size", "10", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    found = json.loads((tmp_path / "figure5-b10.json").read_text(encoding="utf-8"))
    assert [row["epoch"] for row in found["epochs"]] == [1, 1, 1]
    assert all(0 < row["val_loss"] < 10 for row in found["epochs"])
    (row,), numbers = found["rows"], found["settings"]
    # 0.55 GFLOP train one image: three times the products of 17 tokens in 12 blocks of 12 x 192^2
    # parameters, of their attention, of 16 patches of 64 pixels, and of the classifier.
    products = 12 * (17 * 12 * 192**2 + 2 * 17 * 17 * 192) + 16 * 64 * 192 + 192 * 10
    per_image = 3 * 2 * products
    assert per_image == pytest.approx(0.55e9, rel=0.02)
    share = row["median"] * per_image / 0.001e12
    told_share = float(numbers["model FLOPs utilisation"].rstrip(" %")) / 100
    assert told_share == pytest.approx(share, rel=0.01)
    assert row["median"] == pytest.approx(60 / float(numbers["time"].rstrip(" s")), rel=0.01)
    (line,) = [line for line in told.err.splitlines() if line.startswith("|")]
    header = next(
        x for x in RECORD.read_text(encoding="utf-8").splitlines() if x.startswith("| Ca")
    )
    assert line.count("|") == header.count("|")


def test_the_record_trains_the_sweep_of_figure_5() -> None:
    """The models are those of sweeps/mnist_lr.yaml at the paper's scale, by their ids."""
    from vitbench.config import load_sweep
    from vitbench.plan import expand

    sweep = load_sweep(RECORD.parents[1] / "sweeps" / "mnist_lr.yaml")
    ids = [trial.trial_id for trial in expand(sweep)]
    plan = figure5._plan(Dataset(name="mnist"), figure5.part(1.0), 16, "auto")
    assert [member.trial_id for member in plan.members] == ids


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--fraction", "1.5"], "--fraction 1.5: must be above 0 and at most 1"),
        (["--peak-tflops", "-1"], "--peak-tflops -1: must be above 0"),
    ],
)
def test_impossible_parts_are_refused(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, nothing measured."""
    assert main(["figure5", *argv]) == 2
    assert message in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_memory_counts_from_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports before are nobody's."""
    held: dict[str, Any] = {"VmRSS": 1.0, "VmHWM": 3.5}
    monkeypatch.setattr("vitbench.bench.contest._gib", held.__getitem__)
    assert Memory().peak_gib() == 2.5
