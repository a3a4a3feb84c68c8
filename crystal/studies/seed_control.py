"""Can the seed be chosen? SFT demonstrated by each of the five temperaments in turn, from several parents.

Frames are those of `ends.load_ends`; a run is named after the demonstrator, the law that is intended. Where two laws are one
in a task (`branches.SAME`), finding either is finding the intended one.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.tasks import PHASE_TASKS, TASKS
from ..lab import world
from ..measure.inference import Null, against, generator
from ..measure.judging import Verdict
from ..measure.marks import MARKS
from ..measure.phases import tv
from ..present.figures import panels
from . import branches, ends
from .ends import SCOPES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray
EXPERIMENT, LAWS = "seed-control", world.LAWS
TOGETHER = "all five"
QUANTITIES = {"follow rate": ends.follow_rate, "removed share": ends.removed, "liquidity kept": ends.kept}
ORDERS = np.array(list(permutations(range(len(LAWS)))))  # (120, 5), the first leaves everything in place


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of parents from which all five demonstrators were read: only of them is "five in turn" true."""
    runs = frame.groupby("parent")["run"].nunique()
    return frame[frame["parent"].isin(runs.index[runs == len(LAWS)])]


def in_scope(frame: pd.DataFrame, scope: str) -> pd.DataFrame:
    return frame[frame["scope"] == scope]


# --- intended against found ------------------------------------------------------------------------------------------


def load_matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns scope, intended, found, share (of tasks and parents), rows (how many). Laws that are one count as intended."""
    landed = frame["found"].where(frame["follows"] == 0, frame["run"])
    cells = [{"scope": scope, "intended": run, "found": law, "share": (landed[mine.index] == law).mean(), "rows": len(mine)}
             for (scope, run), mine in frame.groupby(["scope", "run"], sort=False) for law in LAWS]
    return pd.DataFrame(cells, columns=["scope", "intended", "found", "share", "rows"])


def plot_matrix(matrix: pd.DataFrame) -> Figure:
    """Intended laws down, found laws across, one panel per scope; shares in per cent."""
    fig, axes = panels(1, len(SCOPES), 7.2, 3.4, sharey=True)
    for ax, scope in zip(axes[0], SCOPES, strict=True):
        table = in_scope(matrix, scope).pivot(index="intended", columns="found", values="share").reindex(index=LAWS, columns=LAWS)
        image = draw_grid(ax, table.to_numpy(), [[f"{100 * share:.0f}" for share in row] for row in table.to_numpy()])
        ax.set_xticks(range(len(LAWS)), LAWS, rotation=40)
        ax.set_yticks(range(len(LAWS)), LAWS)
        ax.set(title=f"{scope} tasks", xlabel="law found")
    axes[0, 0].set_ylabel("demonstrator")
    fig.colorbar(image, ax=axes, label="share of tasks and parents", shrink=0.8)
    return fig


def draw_grid(ax: Axes, table: Array, texts: list[list[str]]) -> object:
    """A grid of shares with their text; what was not read stays empty. Returns what a colour bar needs."""
    edges = (np.arange(size + 1) - 0.5 for size in reversed(table.shape))
    image = ax.pcolormesh(*edges, np.ma.masked_invalid(table), vmin=0, vmax=1, cmap="cividis", edgecolors="white", linewidth=1.5)
    ax.set_ylim(len(table) - 0.5, -0.5)
    for (y, x), share in np.ndenumerate(table):
        if np.isfinite(share):
            ax.text(x, y, texts[y][x], ha="center", va="center", color="black" if share > 0.5 else "white")
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image


# --- chance ----------------------------------------------------------------------------------------------------------


def same_laws(task: str) -> Array:
    """(5, 5) bool: which of the five laws are one in this task."""
    laws = np.stack([world.law(name, TASKS[task]) for name in LAWS])
    return tv(laws[:, None], laws[None]) <= branches.SAME


def hits(frame: pd.DataFrame) -> tuple[pd.DataFrame, Array]:
    """Blocks (columns parent, task) and bool (blocks, 5, 5): would the law that run i found count as following label j?

    frame: of `whole` parents.
    """
    found = frame.pivot(index=["parent", "task"], columns="run", values="found")[list(LAWS)]
    named = found.map(LAWS.index).to_numpy()
    same = np.stack([same_laws(task) for task in found.index.get_level_values("task")])
    return found.index.to_frame(index=False), np.take_along_axis(same, named[:, :, None], axis=1)


def permuted_null(frame: pd.DataFrame, *, n: int = 999, seed: int = 0, together: bool = False) -> Null:
    """The follow rate with the intended labels permuted among the demonstrators of the same parent and task, n times.

    together: one permutation for all tasks of a parent, which also allows for a run that drags its tasks the same way
    by accident; it is the more careful of the two, and not the registered one.
    """
    blocks, counted = hits(frame)
    rates = counted[:, np.arange(len(LAWS)), ORDERS].mean(-1)  # (blocks, 120)
    unit = pd.factorize(blocks["parent"])[0] if together else np.arange(len(blocks))
    orders = generator(seed, "labels").integers(len(ORDERS), size=(n, unit.max() + 1))[:, unit]
    draws = rates[np.arange(len(blocks)), orders].mean(1)
    return against("labels permuted among demonstrators", rates[:, 0].mean(), draws)


def chance_of(frame: pd.DataFrame) -> pd.Series:
    """By demonstrator, the follow rate that permuted labels give on average: how often its law is found, whoever demonstrates."""
    return pd.Series(hits(frame)[1].mean((0, 1)), index=LAWS)


def verdict(frame: pd.DataFrame, *, n: int = 999, seed: int = 0) -> Verdict:
    """seed-follows: the follow rate of held-out tasks, over whole parents, against permuted labels."""
    mine = in_scope(whole(frame), "held-out")
    null = permuted_null(mine, n=n, seed=seed) if len(mine) else None
    return ends.judge("seed-follows", branches.per_parent(mine, ends.follow_rate), null)


# --- by demonstrator -------------------------------------------------------------------------------------------------


def load_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Tidy frame (`ends.tidy`) of the follow rate by demonstrator and scope, then of all five together; chance beside it.

    chance: what permuted labels give on average, over whole parents; nan where there is none.
    """
    rate = {"follow rate": ends.follow_rate}
    tidied = pd.concat([ends.tidy(part, ["run", "scope"], rate) for part in (frame, whole(frame).assign(run=TOGETHER))])
    every = {scope: in_scope(whole(frame), scope) for scope in SCOPES}
    chance = {scope: chance_of(mine) if len(mine) else pd.Series(np.nan, index=LAWS) for scope, mine in every.items()}
    level = [chance[row.scope].get(row.run, chance[row.scope].mean()) for row in tidied.itertuples()]
    return tidied.assign(chance=level).reset_index(drop=True)


def demonstrator_table(frame: pd.DataFrame, rates: pd.DataFrame) -> str:
    """One row per demonstrator and scope: follow rate beside its chance, removed share, liquidity kept. rates: `load_rates`."""
    tidied, rows = ends.tidy(frame, ["run", "scope"], QUANTITIES), []
    for row in ends.means(rates[rates["run"] != TOGETHER]).itertuples():
        others = [ends.said(tidied, run=row.run, scope=row.scope, quantity=quantity) for quantity in list(QUANTITIES)[1:]]
        by_chance = ends.fmt(row.chance) if np.isfinite(row.chance) else "–"
        rows.append([row.run, row.scope, row.parents, ends.interval(row), by_chance, *others])
    return ends.table(["demonstrator", "tasks", "parents", "follow rate", "by chance", *list(QUANTITIES)[1:]], rows)


def plot_rates(rates: pd.DataFrame) -> Figure:
    """Demonstrators across, one panel per scope; every parent an open mark, chance a grey bar, the claim's mark a line."""
    names = [name for name in (*LAWS, TOGETHER) if name in set(rates["run"])]
    fig, axes = panels(1, len(SCOPES), 7.2, 2.9, sharey=True)
    for ax, scope in zip(axes[0], SCOPES, strict=True):
        for x, name in enumerate(names):
            mine = in_scope(rates[rates["run"] == name], scope)
            ends.draw_spots(ax, x, mine, "#0072B2" if name != TOGETHER else "#D55E00", "o" if name != TOGETHER else "D")
            ax.plot(x, mine["chance"].iloc[0], "_", color="#767c85", ms=16, mew=2, label=None if x else "chance")
        ax.axhline(MARKS["seed-follows"].mark, color="#767c85", lw=0.8, ls="--", label="mark of the claim")
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
        ax.set(title=f"{scope} tasks", ylim=(0, 1.05))
    axes[0, 0].set_ylabel("follow rate")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


# --- by task ----------------------------------------------------------------------------------------


def load_tasks(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns task, scope, demonstrator, share (of parents whose task followed), parents; demonstrated tasks first."""
    cells = [{"task": task, "scope": scope, "demonstrator": run, "share": mine["follows"].mean(), "parents": len(mine)}
             for (task, scope, run), mine in frame.groupby(["task", "scope", "run"], sort=False)]
    order = {"scope": SCOPES.index, "task": PHASE_TASKS.index, "demonstrator": LAWS.index}
    return pd.DataFrame(cells).sort_values(list(order), key=lambda column: column.map(order[column.name]), ignore_index=True)


def plot_tasks(cells: pd.DataFrame) -> Figure:
    """Tasks down, demonstrators across: in how many parents the task followed. A line parts demonstrated from held-out tasks."""
    tasks = list(dict.fromkeys(cells["task"]))
    fig, axes = panels(1, 1, 6.2, 0.27 * len(tasks) + 1.3)
    share, parents = (cells.pivot(index="task", columns="demonstrator", values=value).reindex(index=tasks, columns=LAWS)
                      .to_numpy() for value in ("share", "parents"))
    image = draw_grid(ax := axes[0, 0], share, [[f"{k:.0f} of {n:.0f}" for k, n in zip(*row, strict=True)]
                                                for row in zip(share * parents, parents, strict=True)])
    ax.axhline(cells.loc[cells["scope"] == SCOPES[0], "task"].nunique() - 0.5, color="#D55E00", lw=2)
    ax.set_xticks(range(len(LAWS)), LAWS)
    ax.set_yticks(range(len(tasks)), tasks)
    ax.set(xlabel="demonstrator", ylabel="demonstrated above, held out below")
    fig.colorbar(image, ax=ax, label="share of parents that followed")
    return fig
