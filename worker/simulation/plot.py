"""Learning curves with their spread over seeds, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from worker.simulation.report import Curves

# Told apart by colour-blind people, after Okabe and Ito; markers tell them apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class PlotRefused(RuntimeError):
    """There is nothing to draw with."""


def draw_curves(
    curves: Sequence[Curves], path: Path, *, figure: str, title: str = "", minimum_seeds: int = 1
) -> None:
    """Write a PNG: a line per arm through the means, a band of one standard deviation around it.

    Args:
        curves: of the arms.
        path: of the file.
        figure: the metric, for the axis.
        title: above the picture.
        minimum_seeds: arms with fewer are left out.

    Raises:
        PlotRefused: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotRefused(
            "the picture needs matplotlib: pip install 'miaod-service[demo]' (tables and figures "
            "were written)"
        ) from error
    picture = Figure(figsize=(7.5, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    shown = [c for c in curves if len(c.seeds) >= minimum_seeds]
    for number, c in enumerate(shown):
        mean = c.values_SK.mean(axis=0)
        colour = COLOURS[number % len(COLOURS)]
        count = len(c.seeds)
        axes.plot(
            c.images,
            mean,
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            # More arms than colours: the second round is dashed.
            linestyle="-" if number < len(COLOURS) else "--",
            label=f"{c.arm} ({count} seed{'s' if count > 1 else ''})",
        )
        if count > 1:
            spread = c.values_SK.std(axis=0, ddof=1)
            axes.fill_between(c.images, mean - spread, mean + spread, color=colour, alpha=0.12)
    axes.set_xlabel("labeled images")
    axes.set_ylabel(f"{figure} (%)")
    if title:
        axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    picture.savefig(path)
