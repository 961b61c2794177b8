"""Nothing lost, nothing twice: SIGKILL at drawn moments against an undisturbed run."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import optuna
import pandas as pd
import pytest
import sweep_runs

SEARCH = """
name: faults
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 25, batch_size: 32, train_images: 300, val_images: 60, test_images: 60}
search:
  method: random
  suggestions: 12
  seed: 3
  space:
    lr: {low: 0.0001, high: 1.0, log: true}
    patch_grid: [1, 2, 4]
    heads: [1, 2, 3]
checkpoints: {every_s: 0}
max_failures: 10
"""
_DRIVER_KILLS, _WORKER_KILLS = 2, 3


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [4])
def test_killed_sweeps_end_like_undisturbed_ones(tmp_path: Path, seed: int) -> None:
    """Drivers and trial processes die; the tables and the study come out the same."""
    file = tmp_path / "faults.yaml"
    file.write_text(SEARCH)
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    code, output = sweep_runs.sweep_here(str(file), "--out", str(calm))
    assert code == 0, output

    rng = random.Random(seed)
    driver_kills = worker_kills = 0
    arguments = [str(file), "--out", str(stormy)]
    for attempt in range(_DRIVER_KILLS + 1):
        before = sweep_runs.ledger_lines(stormy, "epoch")
        with sweep_runs.SweepRun([*arguments, *(["--resume"] if attempt else [])]) as run:
            for _ in range(_WORKER_KILLS if attempt == _DRIVER_KILLS else 1):
                target = before + rng.randrange(1, 90)
                run.wait_for(lambda t=target: sweep_runs.ledger_lines(stormy, "epoch") >= t)
                if run.process.poll() is not None:
                    break
                if attempt < _DRIVER_KILLS:
                    run.kill_driver()
                    driver_kills += 1
                else:
                    worker_kills += run.kill_workers() > 0
                before = target
            if attempt == _DRIVER_KILLS:
                code, output = run.finish()
    assert code == 0, f"storm {seed}: {output}"
    assert driver_kills == _DRIVER_KILLS, f"storm {seed}: a run ended before it was killed"
    assert worker_kills >= 1, f"storm {seed} killed no worker"

    for expected, found in zip(
        sweep_runs.tables_of(sweep_runs.results_of(calm)),
        sweep_runs.tables_of(sweep_runs.results_of(stormy)),
        strict=True,
    ):
        pd.testing.assert_frame_equal(found, expected, check_exact=True, obj=f"storm {seed}")
    assert finals(stormy) == finals(calm), f"storm {seed}"


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_what_strikes_ray_ends_the_sweep_or_is_survived(tmp_path: Path) -> None:
    """One line and code 1 where the local Ray dies; a stopped worker is killed; all resumes.

    Meanwhile nothing of the sweep listens on anything but loopback.
    """
    file = tmp_path / "faults.yaml"
    file.write_text(SEARCH + "stall_minutes: 0.3\n")
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    arguments = [str(file), "--out", str(stormy)]
    for strike in ("ray::RuntimeEnvAgent", "raylet", "gcs_server"):
        before = sweep_runs.ledger_lines(stormy, "epoch")
        with sweep_runs.SweepRun([*arguments, *(["--resume"] if before else [])]) as run:
            assert run.wait_for(lambda b=before: sweep_runs.ledger_lines(stormy, "epoch") > b)
            assert set(sweep_runs.listens_on(run.family())) == {"127.0.0.1"}
            assert run.strike(strike, signal.SIGKILL) == 1
            code, output = run.finish(90)
        assert code == 1 and "Traceback" not in output, output
        assert "the local Ray has died" in output and "--resume" in output, output
    before = sweep_runs.ledger_lines(stormy, "epoch")
    with sweep_runs.SweepRun([*arguments, "--resume"]) as run:
        assert run.wait_for(lambda: sweep_runs.ledger_lines(stormy, "epoch") > before)
        assert run.strike("ray::ImplicitFunc", signal.SIGSTOP) == 1
        code, output = run.finish(400)
    assert code == 0, output
    # while it trained, or between its last report and its end
    assert "its worker has not reported" in output or "its worker did not end with it" in output
    code, output = sweep_runs.sweep_here(str(file), "--out", str(calm))
    assert code == 0, output
    for expected, found in zip(
        sweep_runs.tables_of(sweep_runs.results_of(calm)),
        sweep_runs.tables_of(sweep_runs.results_of(stormy)),
        strict=True,
    ):
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def finals(out: Path) -> list[tuple[str, str, tuple[float, ...]]]:
    """The trained trials of the study: parameters, final state and values."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = sweep_runs.results_of(out) / "study.db"
    study = optuna.load_study(study_name="faults", storage=f"sqlite:///{path}")
    trained = [trial for trial in study.trials if "reason" not in trial.user_attrs]
    assert len(trained) == 12
    assert all(trial.state.is_finished() for trial in study.trials)
    return sorted((str(t.params), t.state.name, tuple(t.values)) for t in trained)
