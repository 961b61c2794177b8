"""GPU programs are trusted where they agree with torch's operations, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # read when the programs are imported

import pytest
import test_fused_vit
import torch
from torch import Tensor

from vitbench.kernels import check, ops
from vitbench.model import fused_check
from vitbench.model.fused_check import choose_kernels
from vitbench.model.vit import StackedVit


@pytest.fixture(autouse=True)
def _on_this_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The interpreter stands for a GPU; nothing is known of it."""
    monkeypatch.setattr(ops, "usable", lambda device, **_: True)
    monkeypatch.setattr(ops, "attention", test_fused_vit.by_torch)
    fused_check._agree.cache_clear()
    yield
    fused_check._agree.cache_clear()
    check.adam_agrees.cache_clear()


def chosen(*, rounded: bool = True) -> bool:
    """Whether a stack would be computed by the programs."""
    model = StackedVit(test_fused_vit.SHAPE, 2, rounded=rounded)
    choose_kernels(model)
    return model.fused


def test_programs_that_agree_are_used(caplog: pytest.LogCaptureFixture) -> None:
    """For rounded stacks alone, and without a word."""
    assert chosen() and not chosen(rounded=False)
    with torch.inference_mode():  # the first forward pass of a stack is a judgement
        fused_check._agree.cache_clear()
        assert chosen()
    assert caplog.text == ""


@pytest.mark.parametrize("wrong", ["result", "gradient", "nothing"])
def test_programs_that_do_not_agree_are_not_used(
    wrong: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither where a result or a gradient is off, nor where one is not a number."""
    right = ops.bias_gelu

    def off(x_KNM: Tensor, bias_KM: Tensor) -> Tensor:
        made = right(x_KNM, bias_KM)
        if wrong == "gradient":
            return made.detach() + 0.0 * made
        return made * (1.5 if wrong == "result" else float("nan"))

    monkeypatch.setattr(ops, "bias_gelu", off)
    assert not chosen()
    assert "the GPU's program is off in" in caplog.text


def test_where_nothing_can_be_built_torch_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Triton without a C compiler, say; the reason is told once."""

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(ops, "add_norm", fails)
    assert not chosen() and not chosen()
    assert caplog.text.count("Failed to find C compiler") == 1


@pytest.mark.parametrize("wrong", ["", "result", "nothing built"])
def test_the_update_is_compared_too(
    wrong: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights and moments of both rules; a member without life included."""
    right = ops.adam_

    def off(flat_KP: Tensor, *given: Any, **settings: Any) -> None:
        if wrong == "nothing built":
            raise RuntimeError("Failed to find C compiler")
        right(flat_KP, *given, **settings)
        if wrong == "result":
            flat_KP[1] *= 1.01

    monkeypatch.setattr(ops, "adam_", off)
    cpu = torch.device("cpu")
    assert not check.adam_agrees(cpu)  # by torch's operations, and without a word
    assert caplog.text == ""
    agrees = check.agree("updating weights", lambda way: check._updated(cpu, way), 1e-4)
    assert agrees == (not wrong)
    assert {"": "", "result": "off in RAdam's weights", "nothing built": "C compiler"}[
        wrong
    ] in caplog.text
