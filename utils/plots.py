"""Plots as PNG files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.files import written_beside


def save(figure: Figure, path: Path) -> None:
    """Write a PNG file, completely or not at all."""
    with written_beside(path) as file:
        figure.savefig(file, format="png")


@contextmanager
def _axes(path: Path, title: str, x_label: str) -> Iterator[Axes]:
    """Open a figure with axes in per cent. It is written when the block ends."""
    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    yield axes
    axes.set_title(title, parse_math=False)  # a "$" in a user's file name is literal
    axes.set(xlabel=x_label, ylabel="per cent")
    axes.grid(alpha=0.3)
    for text in axes.legend().get_texts():
        text.set_parse_math(False)
    save(figure, path)


def save_curves(
    path: Path,
    title: str,
    x_label: str,
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
) -> None:
    """Plot one line per name over x (logarithmic) in per cent, and write the value at each
    point."""
    order = sorted(range(len(x)), key=lambda i: x[i])
    with _axes(path, title, x_label) as axes:
        for name, values in curves.items():
            points = [(x[i], 100 * values[i]) for i in order]
            axes.plot(*zip(*points), marker="o", label=name)
            for place in points:
                axes.annotate(
                    f"{place[1]:.1f}",
                    place,
                    (0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
        axes.set_xscale("log")
        axes.set_xticks([x[i] for i in order], [f"{x[i]:,}" for i in order])
        axes.minorticks_off()
        axes.margins(y=0.15)


def save_shares(
    path: Path,
    title: str,
    x_label: str,
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    marks: Mapping[str, float],
) -> None:
    """Plot one line per name over x in per cent.

    Args:
        path: PNG file.
        curves: name -> share (0 to 1) at each x.
        marks: caption -> x of a vertical line.
    """
    with _axes(path, title, x_label) as axes:
        for name, values in curves.items():
            axes.plot(x, [100 * value for value in values], label=name)
        for number, (caption, place) in enumerate(marks.items()):
            axes.axvline(place, color="gray", linewidth=0.8, linestyle="--")
            axes.annotate(
                caption,
                (place, 1),
                (3, -9 * (number + 1)),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=8,
            )
