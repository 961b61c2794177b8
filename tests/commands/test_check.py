"""`vitbench check`: what a model costs and whether a stack of it computes the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitbench.commands import check

NET = '''
from torch import nn

def net(*, channels, image_size, outputs, width=8, dropout=0.0, spare=False):
    """64 pixels at most; a spare layer is never called."""
    first = nn.Conv2d(channels, width, 3, padding=1)
    rest = (nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module = nn.Sequential(first, *rest, nn.Dropout(dropout), nn.Linear(width, outputs))
    if spare:
        module[0].spare = nn.Linear(width, width)
    return module
'''


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checked.py").write_text(NET)
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = check.main([*words, "--image-size", "8"])
    out = capsys.readouterr()
    return code, out.out + out.err


def test_a_sound_model_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts are exact; a stack with BatchNorm computes what the module alone does."""
    code, text = run(capsys, "checked:net", "--args", "width=4")
    assert code == 0, text
    parameters = 4 * 9 + 4 + 2 * 4 + 4 * 10 + 10
    flops = 2 * (64 * 4 * 9 + 4 * 10)
    assert f"parameters     {parameters}\n" in text
    assert f"FLOPs          {flops:,} of an image" in text
    assert "stackable      yes" in text and "stack is solo  yes, to" in text


def test_dropout_is_named_as_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """It can be swept all the same, one by one."""
    code, text = run(capsys, "checked:net", "--args", "dropout=0.5")
    assert code == 0, text
    assert "stackable      no, trains one by one: it draws random numbers" in text
    assert "stack is solo  yes, to 0.0e+00" in text


def test_a_layer_that_is_never_called_is_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    """It has no gradient alone, and one of zeros in a stack."""
    code, text = run(capsys, "checked:net", "--args", "spare=true")
    assert code == 0 and "stack is solo  yes, to" in text, text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["checked:net", "--args", "widht=4"],
            "takes no argument widht; it takes width, dropout, spare",
        ),
        (["checked:net", "--args", "width"], "--args width: is not NAME=VALUE"),
        (["nothing:net"], "nothing:net: there is no module nothing in"),
        (["timm:no_such_model"], "timm has no model no_such_model; there are e.g."),
        (["checked:net", "--data", "minst"], "--data 'minst': must be one of"),
    ],
)
def test_what_cannot_be_swept_ends_with_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One message, and what to do."""
    code, text = run(capsys, *words)
    assert code == 2 and message in text, text
