"""The sides of the benchmarks do the same work: one shape, one order, real training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vitbench import hardware
from vitbench.bench import comparisons, peers, profile
from vitbench.bench.__main__ import main
from vitbench.bench.session import Session, choose
from vitbench.bench.sides import order_of_epoch, tiled_digits
from vitbench.config import Model
from vitbench.errors import UserError
from vitbench.model.layout import VitShape
from vitbench.plan import parameter_count

TABLE_1 = 5_356_618  # parameters of the paper's model, with a LayerNorm before the classifier


def session(device: str = "cpu", **asked: Any) -> Session:
    """What the command line asks for, on a machine without a name."""
    return Session(device=device, hardware="", environment={}, on_progress=print, **asked)


@pytest.mark.parametrize("library", sorted(peers.BUILDERS))
def test_every_peer_has_the_papers_shape(library: str) -> None:
    """A smaller or larger model would make the comparison worthless."""
    model = build(library, peers.PAPER)
    parameters = sum(p.numel() for p in model.parameters())
    # vit-pytorch: two LayerNorms in the patch layer, no bias on query, key and value.
    difference = 2 * 64 + 2 * 192 - 12 * 3 * 192 if library == "vit-pytorch" else 0
    assert parameters == TABLE_1 + difference
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert parameter_count(Model(mlp=768), 32, 1, 10) == TABLE_1


def build(library: str, shape: VitShape) -> nn.Module:
    try:
        return peers.BUILDERS[library](shape)
    except UserError as error:
        pytest.skip(str(error))


def test_a_missing_library_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark needs more than a sweep; the message says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "timm.models.vision_transformer", None)
    with pytest.raises(UserError, match=r"timm is not installed.*\[bench\]"):
        peers.timm(peers.PAPER)


def test_the_papers_attention_is_softmax_attention() -> None:
    """The explicit listing computes what torch's fused kernel computes."""
    torch.manual_seed(0)
    layer = peers.PaperAttention(dataclasses.replace(peers.PAPER, width=12, heads=3))
    x = torch.randn(2, 5, 12)
    y = layer.norm(x)
    heads = [
        part.view(2, 5, 3, 4).transpose(1, 2)
        for part in (layer.query(y), layer.key(y), layer.value(y))
    ]
    fused = nn.functional.scaled_dot_product_attention(*heads)
    expected = layer.out(fused.transpose(1, 2).reshape(2, 5, 12))
    torch.testing.assert_close(layer(x), expected)


def test_images_are_real_and_repeat() -> None:
    """As many as asked for; the digits again from the start when they run out."""
    images = tiled_digits(1500)
    assert (len(images.train), len(images.val), len(images.test)) == (1500, 32, 32)
    assert (images.train.images[1197] == images.train.images[0]).all()
    assert images.train.images.std() > 10


def test_all_sides_see_the_images_in_the_engines_order() -> None:
    """The loop of the peers follows the order that the engine draws for seed 0."""
    from vitbench.training.batches import Streams

    streams = Streams([0], ["all"], {"all": torch.arange(40)})
    assert order_of_epoch(40, 3).tolist() == streams.order(3)[0].tolist()
    assert order_of_epoch(40, 3).tolist() != order_of_epoch(40, 4).tolist()


def test_only_picks_sides_by_name_and_refuses_others() -> None:
    """A misspelt name must not measure nothing."""
    everyone = comparisons.train_sides(session(quick=True, members=[1, 3]), 16)
    names = ["vitbench K=1", "vitbench K=3", "vitbench K=1, generic"]
    assert [c.name for c in choose(everyone, ["K="])] == names
    assert choose(everyone, []) == everyone
    with pytest.raises(UserError, match="--only tim2: no contender"):
        choose(everyone, ["tim2"])


def test_a_gpu_is_measured_against_the_strongest_peer_too() -> None:
    """Not only against float32 behind a DataLoader: bf16, on-device batches, compiled."""
    gpu = session(device="cuda", members=[1, 3])
    names = {side.name for side in comparisons.train_sides(gpu, 128)}
    assert {"timm, no loader, bfloat16, compiled", "vitbench K=3, compiled"} <= names
    stacks = comparisons.stack_sides(gpu, comparisons.SIZES[0], 128, 1280)
    assert [side.name for side in stacks] == ["K=1", "K=2", "K=4", "K=8", "K=16", "K=32"]


def test_scaling_compares_processes_with_threads_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process per core is what a sweep does; the table shows why."""
    monkeypatch.setattr(hardware, "cpu_count", lambda: 2)
    everyone = comparisons.stack_sides(session(), comparisons.SIZES[1], 16, 64)
    sides = {side.name: side for side in everyone}
    assert sides["K=1, 2 processes"].copies == 2
    assert {c.settings["width"] for c in sides.values()} == {64}
    assert sides["K=1, 2 threads"].settings["threads"] == 2
    assert all(c.settings["images"] >= 32 for c in sides.values())


def test_train_runs_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real training of two sides in turns; JSON, table and figure are left behind."""
    out = tmp_path / "out"
    argv = ["train", "--rounds", "2", "--images", "16", "--batch-size", "8", "--members", "2"]
    only = ["--only", "K=2", "--only", "listing", "--quick"]
    assert main([*argv, *only, "--device", "cpu", "--out", str(out)]) == 0
    record = json.loads((out / "train-b8.json").read_text(encoding="utf-8"))
    half = ["vitbench K=2, bfloat16"] if hardware.has_amx() else []
    names = [row["name"] for row in record["rows"]]
    assert names == ["vitbench K=2", *half, "paper's listing"]
    for row in record["rows"]:
        assert len(row["rates"]) == 2 and min(row["rates"]) > 0
        assert row["parameters"] == TABLE_1
        assert 0 < row["peak_gib"] < 3
    assert record["environment"]["packages"]["torch"] == torch.__version__
    assert "| **vitbench K=2** |" in capsys.readouterr().out
    assert (out / "train-b8.png").stat().st_size > 5_000


def test_results_are_gathered_on_one_page(tmp_path: Path) -> None:
    """`report` shows each folder with its environment and links the figures beside the page."""
    out = tmp_path / "some-machine"
    argv = ["input", "--rounds", "1", "--images", "64", "--batch-size", "32", "--only", "vitbench"]
    assert main([*argv, "--only", "resized", "--device", "cpu", "--out", str(out)]) == 0
    assert main(["report", str(out), "--to", str(tmp_path / "RESULTS.md")]) == 0
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "](some-machine/input.png)" in page
    assert f"torch {torch.__version__}" in page


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "--rounds", "0"], "--rounds 0: must be 1 or more"),
        (["train", "--only", "nobody"], "--only nobody: no contender"),
        (["report", "nowhere", "--to", "x.md"], "nowhere: no results there"),
    ],
)
def test_mistakes_end_in_one_message(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, nothing measured, nothing written."""
    assert main(argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Never a silent fallback to the CPU under a GPU's name."""
    assert main(["train", "--device", "cuda"]) == 2
    assert "torch sees no GPU here" in capsys.readouterr().err


def test_inputs_name_each_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, the usual one with and without workers, and resized tensors."""
    monkeypatch.setattr(hardware, "cpu_count", lambda: 2)
    sides = comparisons.input_sides(session(), 128, 64)
    assert [side.name for side in sides] == [
        "vitbench",
        "torchvision, in process",
        "torchvision, 2 workers",
        "resized tensors, DataLoader",
    ]


@pytest.mark.parametrize(
    ("operation", "group"),
    [
        ("aten::addmm", "matrix products"),
        ("nvjet_hsh_128x64_64x8_4x1", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16", "matrix products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention kernel"),
        ("aten::native_layer_norm_backward", "LayerNorm"),
        ("aten::gelu_backward", "GELU"),
        ("aten::_fused_adam_", "optimiser"),
        ("Memcpy DtoD (Device -> Device)", "copies, gathers"),
        ("aten::copy_", "copies, gathers"),
        ("aten::add_", "additions, sums"),
        ("aten::view", "other"),
    ],
)
def test_operations_are_grouped_by_kind(operation: str, group: str) -> None:
    """The profile is readable only if the large items land where a reader looks for them."""
    assert profile.group(operation) == group


def test_the_profile_accounts_for_the_whole_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts add up to the step, and matrix products are the largest."""
    monkeypatch.setattr(profile, "_PEAK_SIZE", 64)
    out = tmp_path / "out"
    argv = ["profile", "--quick", "--rounds", "1", "--batch-size", "16", "--device", "cpu"]
    assert main([*argv, "--out", str(out)]) == 0
    record = json.loads((out / "profile-b16-k1.json").read_text(encoding="utf-8"))
    whole, *parts = record["rows"]
    assert whole["name"] == "whole step"
    assert sum(part["median"] for part in parts) == pytest.approx(whole["median"], rel=0.02)
    assert parts[0]["name"] == "matrix products"
