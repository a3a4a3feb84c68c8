"""Figures and sentences of the page on real checkpoints: answered mass, contexts against wordings,
free answers against begun ones. Only plots load matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.tasks import TASKS
from ..errors import CrystalError
from ..files import root
from ..present.axes import panels, title_of
from ..present.show import fmt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # Okabe-Ito
_SIGNS = ("o", "s", "^", "D")
FEWEST = 10  # free answers that name an option: of fewer there is no distribution
_WAYS = ["ladder", "task", "context", "way", "option", "mass", "draws"]


def _places(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(frame[["ladder", "form"]].drop_duplicates().itertuples(index=False, name=None))


def _mine(frame: pd.DataFrame, place: tuple[str, str]) -> pd.DataFrame:
    return frame[(frame["ladder"] == place[0]) & (frame["form"] == place[1])]


def answered(numbers: pd.DataFrame) -> pd.DataFrame:
    """What `plot_answered` draws: one row for each checkpoint, form and task."""
    return numbers[["ladder", "form", "task", "answered", "prompts", "contexts"]]


def answered_in_words(numbers: pd.DataFrame) -> str:
    """The finding, a sentence for each checkpoint and form; plain text."""
    return " ".join(
        f"{title_of(ladder)}, {form}: at least half of the mass on "
        f"{int((_mine(numbers, (ladder, form))['answered'] >= 0.5).sum())} of "
        f"{len(_mine(numbers, (ladder, form)))} tasks."
        for ladder, form in _places(numbers)
    )


def plot_answered(numbers: pd.DataFrame) -> Figure:
    """Tasks down, median answered mass across, a sign for each checkpoint and form."""
    fig, axes = panels(1, 1, 6.4, 4.6)
    ax, tasks = axes[0, 0], list(dict.fromkeys(numbers["task"]))
    for number, place in enumerate(_places(numbers)):
        mine = _mine(numbers, place)
        at = [tasks.index(task) for task in mine["task"]]
        ax.plot(mine["answered"], at, _SIGNS[number], color=_SERIES[number], label=_label(place))
    ax.axvline(0.2, color="#767c85", lw=1)
    _tasks_down(ax, tasks, "median mass on an option")
    ax.set_xlim(0, 1)
    return _keyed(fig, ax)


def apart(numbers: pd.DataFrame) -> pd.DataFrame:
    """What `plot_apart` draws: the two divergences of each checkpoint, form and task, in bits."""
    ends = [
        name + end
        for name in ("contexts_apart", "wordings_apart", "lead")
        for end in ("", "_low", "_high")
    ]
    return numbers[["ladder", "form", "task", *ends]]


def apart_in_words(numbers: pd.DataFrame) -> str:
    """The finding, a sentence for each checkpoint and form; plain text."""
    return " ".join(
        f"{title_of(ladder)}, {form}: the context matters more on "
        f"{int((_mine(numbers, (ladder, form))['lead_low'] > 0).sum())} of "
        f"{len(_mine(numbers, (ladder, form)))} tasks, the wording on "
        f"{int((_mine(numbers, (ladder, form))['lead_high'] < 0).sum())}."
        for ladder, form in _places(numbers)
    )


def plot_apart(numbers: pd.DataFrame) -> Figure:
    """A panel for each checkpoint and form: divergence between contexts and between wordings."""
    places, tasks = _places(numbers), list(dict.fromkeys(numbers["task"]))
    fig, axes = panels(1, len(places), 3.0 * len(places) + 0.8, 4.6, sharey=True, sharex=True)
    kinds = (
        ("contexts_apart", "another context", -0.15),
        ("wordings_apart", "another wording", 0.15),
    )
    for ax, place in zip(axes[0], places, strict=True):
        mine = _mine(numbers, place)
        at = np.array([tasks.index(task) for task in mine["task"]], float)
        for number, (name, label, shift) in enumerate(kinds):
            value = mine[name].to_numpy()
            reach = np.abs([value - mine[f"{name}_low"], mine[f"{name}_high"] - value])
            ax.errorbar(
                value,
                at + shift,
                xerr=reach,
                fmt=_SIGNS[number],
                color=_SERIES[number],
                label=label,
                ms=4,
                lw=1,
            )
        _tasks_down(ax, tasks, "divergence, bits")
        ax.set_title(_label(place), fontsize="small")
    return _keyed(fig, axes[0, 0])


def cells(row: tuple, name: str) -> tuple[str, str]:
    """A number of a row of `contexts.table`, and its interval, as a table shows them."""
    return (
        fmt(getattr(row, name)),
        f"[{fmt(getattr(row, f'{name}_low'))}, {fmt(getattr(row, f'{name}_high'))}]",
    )


def number(value: float) -> str:
    """A number as prose prints it; a dash where there is none."""
    return fmt(None if np.isnan(value) else value)


def load_ways(file: str) -> pd.DataFrame:
    """Free answers against begun ones, one row for each ladder and task, tasks in their order.

    Columns: prompts, draws (of each prompt), named (share of free answers that name one option),
    answered (mean answered mass of the begun reply), tv (total variation between the mean
    conditional distributions), noise (what drawing alone gives to be expected, by the normal
    approximation), top_free and top_begun (the likeliest options). tv and noise are nan, top_free a
    dash, where fewer than FEWEST free answers name an option.
    Raises: CrystalError for a missing file.
    """
    path = root() / file
    if not path.is_file():
        raise CrystalError("the file is missing", where=path, mend=f"git checkout -- {file}")
    frame = pd.read_csv(path, dtype={"option": str}, keep_default_na=False)
    rows = [_way(ladder, task, mine) for (ladder, task), mine in frame.groupby(["ladder", "task"])]
    return pd.DataFrame(rows).sort_values("task", key=lambda names: names.map(list(TASKS).index))


def _way(ladder: str, task: str, frame: pd.DataFrame) -> dict:
    options = list(TASKS[task].options)
    mean = {
        way: mine.groupby("option")["mass"].sum() / mine["context"].nunique()
        for way, mine in frame.groupby("way")
    }
    free, begun = (
        mean[way].reindex(options, fill_value=0.0).to_numpy() for way in ("free", "begun")
    )
    prompts, draws = frame["context"].nunique(), int(frame["draws"].max())
    p, q = (law / max(law.sum(), 1e-12) for law in (free, begun))
    count = prompts * draws * free.sum()
    enough = round(count) >= FEWEST
    noise = np.sqrt(2 * q * (1 - q) / (np.pi * max(count, 1))).sum() / 2
    return {
        "ladder": ladder,
        "task": task,
        "prompts": prompts,
        "draws": draws,
        "named": free.sum(),
        "answered": begun.sum(),
        "tv": float(np.abs(p - q).sum() / 2) if enough else np.nan,
        "noise": float(noise) if enough else np.nan,
        "top_free": options[p.argmax()] if enough else "–",
        "top_begun": options[q.argmax()],
    }


def way_rows(
    ladder: str, task: str, context: str, way: str, laws: Iterable[tuple[str, float]], draws: int
) -> pd.DataFrame:
    """Rows of the file that `load_ways` reads; an option "" is no option."""
    return pd.DataFrame(
        [(ladder, task, context, way, option, mass, draws) for option, mass in laws], columns=_WAYS
    )


def _tasks_down(ax, tasks: list[str], name: str) -> None:
    ax.set_yticks(range(len(tasks)), tasks)
    ax.set_ylim(len(tasks) - 0.5, -0.5)
    ax.set_xlabel(name)


def _label(place: tuple[str, str]) -> str:
    return f"{title_of(place[0]).split(' (')[0]}, {place[1]}"


def _keyed(fig: Figure, ax) -> Figure:
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return fig
