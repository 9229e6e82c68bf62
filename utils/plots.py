"""Curves as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from utils.errors import UserError


def save_curves(
    path: Path,
    title: str,
    x_label: str,
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
) -> None:
    """One line per name over x (logarithmic), in per cent, each point with its value."""
    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    order = sorted(range(len(x)), key=lambda i: x[i])
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
    axes.set(title=title, xlabel=x_label, ylabel="per cent")
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
