"""What the figures of a page share: panels, names along an axis, colours (Okabe-Ito) and marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..ask.ladders import hub_names, ladder_names, load_ladder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "base": "#767c85",
    "seed": "#E69F00",
    "sft": "#0072B2",
    "dpo": "#CC79A7",
    "rlvr": "#009E73",
    "chance": "#767c85",
}
MARKERS = {"base": "s", "sft": "o", "dpo": "^", "rlvr": "D"}


def panels(
    rows: int, columns: int, width: float, height: float, **shared
) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns axes, each row `height` inches high, not registered with
    pyplot.
    """
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height * rows), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **shared)


def option_ticks(ax: Axes, names: Sequence[str], at: Sequence[float]) -> None:
    """Name options along x; every so many of them if there are too many to read."""
    step = 1 if len(names) <= 30 else 10
    ax.set_xticks(
        list(at)[::step], list(names)[::step], rotation=90 if max(map(len, names)) > 2 else 0
    )
    ax.grid(False, axis="x")


def title_of(ladder: str) -> str:
    """Its title as described, plain; a name that no file describes, as it is."""
    return (
        load_ladder(ladder, unpinned=True).title
        if ladder in (*ladder_names(), *hub_names())
        else ladder
    )
