"""A user's builder from a file beside the sweep file: trained, resumed, and refused where wrong."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import sweep_runs
import torch

import vitbench
from vitbench import sweep as command
from vitbench.attention import __main__ as attention_command
from vitbench.config import load_results_sweep
from vitbench.plan import expand

NET = """
from torch import nn
from parts.layers import hidden

def net(*, channels, image_size, outputs, width=8, deep: bool = False):
    pixels = channels * image_size**2
    return nn.Sequential(nn.Flatten(), *hidden(pixels, width, deep), nn.Linear(width, outputs))
"""
LAYERS = """
from torch import nn

def hidden(pixels, width, deep):
    return [nn.Linear(pixels, width), nn.ReLU()] + [nn.Linear(width, width), nn.ReLU()] * deep
"""
SWEEP = """
name: own
dataset: {name: digits, image_size: 8}
model:
  build: mymodels:net
  args: {width: 6}
train: {epochs: 2, batch_size: 32, train_images: 96, val_images: 50, test_images: 40}
search: {space: {args.deep: [false, true], lr: [0.01, 0.001]}}
attention: {top: 0}
stack_size: 2
resources: {cpus: 1.5}  # one process trains all: each begins with seconds of imports
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sweep file and the module that it names, which imports another."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "layers.py").write_text(LAYERS)
    (tmp_path / "mymodels.py").write_text(NET)
    path = tmp_path / "own.yaml"
    path.write_text(SWEEP)
    return path


@pytest.mark.slow
@pytest.mark.ray
def test_a_builder_is_trained_recorded_and_resumed(file: Path, tmp_path: Path) -> None:
    """Its arguments are arms, its files lie with the results, changed code is refused by diff."""
    out = tmp_path / "out"
    code, output = sweep_runs.sweep_here(str(file), "--out", str(out))
    assert code == 0, output
    folder = sweep_runs.results_of(out)
    trials = pd.read_parquet(folder / "trials.parquet")
    assert list(trials["status"]) == ["finished"] * 4
    assert list(trials["model"]) == ["mymodels:net"] * 4
    trials = trials.sort_values("parameters", kind="stable")
    assert trials["args.deep"].tolist() == [False, False, True, True]
    assert trials["args.width"].tolist() == [6] * 4
    plain, deep = 64 * 6 + 6 + 6 * 10 + 10, 6 * 6 + 6
    assert trials["parameters"].tolist() == [plain, plain, plain + deep, plain + deep]
    assert trials["width"].isna().all()
    assert {t.trial_id for t in expand(load_results_sweep(folder))} == set(trials["trial_id"])
    assert (folder / "code" / "parts" / "layers.py").read_text() == LAYERS
    assert "args.deep" in (folder / "report.html").read_text()
    plain_model = vitbench.load_model(folder)
    assert plain_model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)

    code, output = sweep_runs.sweep_here(str(file), "--out", str(out), "--resume")
    assert code == 0 and "4 done" in output, output
    (tmp_path / "parts" / "layers.py").write_text(LAYERS.replace("ReLU", "Tanh"))
    code, output = sweep_runs.sweep_here(str(file), "--out", str(out), "--resume")
    assert code == 2
    assert "-    return [nn.Linear(pixels, width), nn.ReLU()]" in output
    assert "+    return [nn.Linear(pixels, width), nn.Tanh()]" in output


@pytest.mark.slow
@pytest.mark.ray
def test_several_models_in_one_sweep(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ViT, a builder and a library's model, each with rates of its own; names in the tables."""
    file.write_text(
        """
name: several
dataset: {name: digits, image_size: 8}
models:
  vit: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
  own: {build: "mymodels:net", args: {width: 5}}
  timms:
    build: timm:vit_tiny_patch16_224
    args: {img_size: 8, patch_size: 4, depth: 1, embed_dim: 8, num_heads: 2}
train: {epochs: 2, batch_size: 32, train_images: 96, val_images: 50, test_images: 40}
search: {space: {model: [vit, own, timms], lr: [0.003], own.lr: [0.01, 0.001], vit.depth: [1, 2]}}
attention: {top: 1, images: 4}
stack_size: 2
resources: {cpus: 1.5}
"""
    )
    out = tmp_path / "out"
    code, output = sweep_runs.sweep_here(str(file), "--out", str(out))
    assert code == 0, output
    folder = sweep_runs.results_of(out)
    trials = pd.read_parquet(folder / "trials.parquet")
    arms = trials[["model", "lr", "depth"]].fillna(0).sort_values(["model", "lr", "depth"])
    assert arms.to_numpy().tolist() == [
        ["own", 0.001, 0],
        ["own", 0.01, 0],
        ["timms", 0.003, 0],
        ["vit", 0.003, 1],
        ["vit", 0.003, 2],
    ]
    report = (folder / "report.html").read_text()
    spread = pd.read_csv(folder / "attention" / "spread.csv")
    assert set(spread["trial_id"]) == set(trials.loc[trials["model"] != "own", "trial_id"])
    assert "Model own: of 2 learning rates" in report and "depth none" not in report
    best = trials[trials["model"] == "own"].sort_values("best_val_loss")["trial_id"].iloc[0]
    assert "Model own shows no attention." in report and "Input gradient of " in report
    summary = pd.read_csv(folder / "attention" / "attention_summary.csv")
    by_gradient = summary[summary["method"] == "input_gradient"].set_index("score")
    assert (
        set(by_gradient["trial_id"]) == {best} and (folder / f"attention/plate_{best}.png").exists()
    )
    controls = {"", "_untrained", "_other_image", "_mean_map", "_uniform"}
    assert {f"ink_lift{control}" for control in controls} <= set(by_gradient.index)
    assert {"deletion", "insertion"} <= set(by_gradient.index)
    assert attention_command.main([str(folder), "--trial", best, "--images", "4"]) == 0
    assert "this model shows no attention" in capsys.readouterr().out
    assert attention_command.main([str(folder), "--trial", best, "--method", "last"]) == 2
    assert "--method last: this model has none; use input_gradient" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "change", "words"),
    [
        (None, "", "there is no module mymodels in"),
        ("def net(:", "", "mymodels.py:1: is not valid Python"),
        ("def other(): pass", "", "mymodels has no function net; check the name"),
        ("import nothing_of_this_name", "", "ModuleNotFoundError: No module named 'nothing_of"),
        ("def net(channels, outputs): pass", "", "takes no argument image_size; the contract is"),
        (NET, "args: {widht: 6}", "own.yaml:6: model.args.widht=6: mymodels:net takes no such"),
        (NET, "args: {width: -1}", "that it names raised while building mymodels:net with width=-"),
        ("def net(**given): return 3", "", "returns int, not a torch.nn.Module"),
        (NET.replace("outputs)", "7)"), "", "answers images [2, 1, 8, 8] with [2, 7], not [2, 10]"),
        (NET.replace("nn.Flatten(), *", "nn.Identity(), *"), "", "shapes cannot be multiplied"),
        (NET.replace("    pixels", "    print('hello')\n    pixels"), "", "prints to the console"),
        (
            NET.replace("    pixels", "    import os; width += 4 + os.urandom(1)[0]\n    pixels"),
            "",
            "is not deterministic for a seed: 1.weight differs",
        ),
    ],
)
def test_bad_builders_are_refused_before_anything_starts(
    file: Path, module: str | None, change: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One message with the line of the sweep file, exit code 2, no results folder."""
    if module is None:
        (file.parent / "mymodels.py").unlink()
    else:
        (file.parent / "mymodels.py").write_text(module)
    if change:
        file.write_text(file.read_text().replace("args: {width: 6}", change))
    out = file.parent / "out"
    assert command.main([str(file), "--out", str(out)]) == 2
    error = capfd.readouterr().err
    assert words in error, error
    assert "own.yaml:" in error
    assert "own_models.py" not in error
    assert not out.exists()


EXTRAS = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self, pixels, outputs, how):
        super().__init__()
        self.line, self.how = nn.Linear(pixels, outputs), how
        self.norm = nn.BatchNorm1d(outputs) if how == "norm" else nn.Identity()

    def forward(self, images):
        logits = self.line(images.flatten(1))
        if self.how == "nan":
            return logits / 0 * 0
        if self.how == "draws":
            return logits + torch.rand_like(logits)
        if self.how == "changes":
            with torch.no_grad():
                self.line.bias += 1
        if self.how == "backward":
            logits.register_hook(lambda gradient: 1 / 0)
        return logits.detach() if self.how == "detached" else self.norm(logits)

def net(*, channels, image_size, outputs, how):
    if how == "exits":
        raise SystemExit(0)
    if how == "lazy":
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs))
    return Odd(channels * image_size**2, outputs, how)
"""


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan", "answers images of noise with NaN"),
        ("draws", "answers the same images differently when called again in eval mode"),
        ("changes", "changes its parameter line.bias when it is called"),
        ("detached", "answers logits without a gradient"),
        ("backward", "raised while the backward pass of mymodels:net"),
        ("exits", "SystemExit: 0"),
        ("lazy", "does not know the size of 1.weight yet"),
        ("norm", "the last batch of 97 images by 32 leaves a worker no more"),
    ],
)
def test_odd_models_are_refused(
    file: Path, how: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What would make results that nobody can trust or repeat."""
    (file.parent / "mymodels.py").write_text(EXTRAS)
    space = "{space: {lr: [0.01]}}"
    text = SWEEP.replace("width: 6", f"how: {how}").replace("train_images: 96", "train_images: 97")
    text = text.replace("{space: {args.deep: [false, true], lr: [0.01, 0.001]}}", space)
    file.write_text(text)
    assert command.main([str(file), "--out", str(file.parent / "out")]) == 2
    assert words in capfd.readouterr().err


def test_the_users_traceback_is_shown_and_none_of_ours(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As it is: file, line, source and error, after one line that says where it came from."""
    (file.parent / "mymodels.py").write_text(NET.replace("    pixels", "    1 / 0\n    pixels"))
    assert command.main([str(file), "--out", str(file.parent / "out")]) == 2
    error = capfd.readouterr().err
    assert f'File "{file.parent}/mymodels.py", line 6, in net' in error
    assert "ZeroDivisionError: division by zero" in error
    assert "/vitbench/" not in error


def test_a_dry_run_counts_the_models_parameters(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials, their arguments and sizes, and a forecast from real steps."""
    assert command.main([str(file), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "args.deep" in shown and "460" in shown and "502" in shown
    assert "time:   about" in shown
