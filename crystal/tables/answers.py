"""The answers in a table of one task as a picture: every prompt, at every checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..present.figures import panels
from ..present.views import title_of
from ..texts import label
from .table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 3  # panels
NAMED = 24  # options at most


def load_answers(table: Table, checkpoints: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """A row per prompt of every checkpoint (ladder, stage): these names, and the probability of
    each option, conditional on an option. Prompts with the same likeliest one side by side.
    """
    (options,) = table.options.values()
    there, frames = dict(iter(table.frame.groupby(["ladder", "stage"], sort=False))), []
    for ladder, stage in checkpoints:
        mine = there[ladder, stage]
        laws = np.stack(mine["law"].tolist())
        order = np.lexsort((-laws.max(axis=1), laws.argmax(axis=1)))
        about = {"ladder": ladder, "stage": stage, "prompt": mine["prompt"].to_numpy()[order]}
        frames.append(pd.DataFrame(about).join(pd.DataFrame(laws[order], columns=options)))
    return pd.concat(frames, ignore_index=True)


def plot_answers(frame: pd.DataFrame) -> Figure:
    """A panel per checkpoint: prompts down, options across, brighter is likelier."""
    options, places = list(frame.columns[3:]), frame.groupby(["ladder", "stage"], sort=False)
    fig, axes = panels(-(-len(places) // ACROSS), min(ACROSS, len(places)), 2.4)
    step = -(-len(options) // NAMED)
    for ax in axes.flat[len(places) :]:
        ax.set_visible(False)
    for ax, ((ladder, stage), mine) in zip(axes.flat, places, strict=False):
        image = ax.imshow(
            mine[options], aspect="auto", vmin=0, vmax=1, cmap="cividis", interpolation="none"
        )
        ax.set(title=label(f"{title_of(ladder)}, {stage}", wide=24), yticks=[])
        ax.set_xticks(range(len(options))[::step], [label(x, most=12) for x in options[::step]])
        ax.tick_params(axis="x", rotation=90)
        ax.grid(False)
    axes[0, 0].set_ylabel("prompts")
    fig.colorbar(image, ax=axes, label="probability", aspect=25)
    return fig
