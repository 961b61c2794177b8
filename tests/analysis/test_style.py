"""How figures look: one colour per value, labels at line ends apart, nothing cut off."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vitbench.analysis import style


def test_a_value_has_one_colour_whatever_stands_beside_it_in_which_order() -> None:
    """Figures list the same rates and settings in orders of their own."""
    rates = [1e-4, 1e-3, 1e-2]
    assert style.colour_of(rates) == style.colour_of(rates[::-1])
    arms = [f"lr {rate:g}" for rate in rates]
    assert list(style.colour_of(arms).values()) == list(style.colour_of(rates).values())
    names = ["b", "a", "c"]
    assert style.colour_of(names) == style.colour_of(sorted(names))


def test_a_rate_has_the_colour_that_it_has_in_the_whole_sweep() -> None:
    """Also in a figure of one model, which was given fewer rates than others."""
    rates = [1e-4, 1e-3, 1e-2]
    every, alone = style.colour_of(rates), ["model vit, lr 0.0001", "model vit, lr 0.001"]
    with style.rates_of_sweep(rates):
        assert list(style.colour_of(alone).values()) == [every[1e-4], every[1e-3]]
    assert list(style.colour_of(alone).values()) != [every[1e-4], every[1e-3]]
    mixed = style.colour_of(["model vit, lr 0.001", "model cnn, lr 0.001"])
    assert set(mixed.values()) == set(style.COLOURS[:2])  # the model differs


def test_a_legend_is_no_wider_than_its_figure() -> None:
    """Settings may have long names: columns become fewer, and no name is cut off."""
    with style.canvas(3.0, "Title\nwhat it is of") as figure:
        ax = figure.subplots()
        for number in range(6):
            ax.plot([0, 1], label=f"learning rate 0.000{number}, label {number}, depth 12, radam")
        figure.legend(loc="outside lower center", ncols=3)
    (box,) = _boxes(figure, figure.legends)
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and len(figure.legends[0].get_texts()) == 6


def test_a_label_is_no_longer_than_its_axis() -> None:
    """It would run over the title; breaks that a figure sets itself stay."""
    with style.canvas(2.5, "Title") as figure:
        ax = figure.subplots()
        ax.set_ylabel("cross entropy at the last epoch (nats)\nband: 95 % t interval of the mean")
    (box,) = _boxes(figure, [ax.yaxis.label])
    assert box.y0 >= 0 and box.y1 <= figure.bbox.y1 and "(nats)\nband" in ax.get_ylabel()


def test_colours_of_rates_follow_their_logarithm() -> None:
    """Half way in the logarithm is half way along the colours."""
    three = style.colour_of([1e-4, 1e-2, 1.0])
    assert three[1e-2] == style.colour_of([1e-4, 1e-3, 1e-2, 1e-1, 1.0])[1e-2]


@pytest.mark.parametrize(
    "heights", [[0.5] * 6, [1.0] * 4, [0.0, 0.001, 0.002], [-3.0, 5.0], [0.2] * 99]
)
def test_labels_at_line_ends_lie_apart_and_inside(heights: list[float]) -> None:
    """Lines that end at one height have names above one another."""
    with style.canvas(3.0, "Title\nwhat it is of") as figure:
        ax = figure.subplots()
        ax.set_ylim(0, 1)
        style.label_ends(ax, [(y, f"line {n}", "black") for n, y in enumerate(heights)])
    boxes = sorted(_boxes(figure, ax.texts), key=lambda box: box.y0)
    for lower, upper in itertools.pairwise(boxes):
        assert lower.y1 <= upper.y0 + 1
    assert all(box.y0 > 0 and box.y1 < figure.bbox.y1 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_what_a_figure_is_of_stands_below_everything_else() -> None:
    """Neither a legend nor an axis label is drawn over the small line."""
    with style.canvas(3.0, "Title\n" + "a data set, so many images, " * 7) as figure:
        ax = figure.subplots()
        ax.plot([0, 1], label="a line")
        ax.set_xlabel("epoch")
        figure.legend(loc="outside lower center")
    _, line = _boxes(figure, figure.texts)
    (legend,) = _boxes(figure, figure.legends)
    (label,) = _boxes(figure, [ax.xaxis.label])
    assert line.y0 >= 0 and line.y1 <= legend.y0 + 1 and legend.y1 <= label.y0 + 1
    assert line.x1 <= figure.bbox.x1


def _boxes(figure: Figure, artists: object) -> list:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [artist.get_window_extent(canvas.get_renderer()) for artist in artists]


def test_ticks_of_logarithmic_axes_are_no_formulas(tmp_path: Path) -> None:
    """Labels such as `$x^$` are shown as they are, so powers of ten are written in plain signs."""
    with style.canvas(2.0, "$x^$") as figure:
        wide, narrow = figure.subplots(1, 2)
        wide.set(xscale="log", xlim=(1e-5, 1))
        narrow.set(xscale="log", xlim=(0.15, 0.8))
    style.save_picture(figure, tmp_path / "ticks.png")
    shown = [
        [tick.get_text() for tick in ax.get_xticklabels(which="both")] for ax in (wide, narrow)
    ]
    assert "10⁻³" in shown[0] and "2×10⁻¹" in shown[1]
    assert not any("$" in text for text in (*shown[0], *shown[1]))
