"""Demonstrators that are no single narrator: two at three to two, everyone in turn by chance, each its own, and a stranger.

The demonstrator `own` has no one law, so nothing of the distance to a law is said of it.
Frames as in `crystal.studies.seed_control`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.tasks import PHASE_TASKS, TASKS
from ..lab import experiments, world
from ..measure.judging import Verdict
from ..measure.phases import tv
from ..present.figures import panels
from . import branches, ends
from .ends import SCOPES, draw_spots
from .seed_control import EXPERIMENT, LAWS, in_scope

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ONE, TWO, EVERYONE, STRANGER = "salient", "mixed-60-40", "everyone", "permuted"
RUNS = (ONE, TWO, EVERYONE, world.OWN, STRANGER)
KEPT, NEAR, FAR, REMOVED = "liquidity kept", "distance before, bits", "distance after, bits", "removed share"
QUANTITIES = {KEPT: ends.kept, NEAR: lambda mine: mine["to_law_before"].mean(), FAR: lambda mine: mine["to_law"].mean(),
              REMOVED: ends.removed}
SAYS_NOTHING = {world.OWN: {NEAR, FAR, REMOVED}, EVERYONE: {REMOVED}}  # the base's mean is everyone's law: nothing to remove
COLOURS = dict(zip(SCOPES, ("#0072B2", "#D55E00"), strict=True))
MARKERS = dict(zip(SCOPES, "os", strict=True))


# --- what is kept, how far it goes -----------------------------------------------------------------------------------


def load_mixed(frame: pd.DataFrame) -> pd.DataFrame:
    """Tidy frame (`ends.tidy`) by run and scope: liquidity kept, and the distance to the run's law where it has one."""
    parts = [ends.tidy(mine, ["run", "scope"], {name: value for name, value in QUANTITIES.items()
                                                if name not in SAYS_NOTHING.get(run, ())})
             for run, mine in frame.groupby("run", sort=False)]
    return pd.concat(parts, ignore_index=True)


def plot_mixed(tidied: pd.DataFrame) -> Figure:
    """Demonstrators across, demonstrated and held-out tasks side by side, every parent an open mark; grey: before SFT."""
    runs = [run for run in RUNS if run in set(tidied["run"])]
    fig, axes = panels(1, 2, 7.2, 3.2)
    for ax, quantity in zip(axes[0], (KEPT, FAR), strict=True):
        for side, scope in zip((-0.17, 0.17), SCOPES, strict=True):
            for x, run in enumerate(runs):
                mine = tidied[(tidied["run"] == run) & (tidied["scope"] == scope)]
                draw_spots(ax, x + side, mine[mine["quantity"] == quantity], COLOURS[scope], MARKERS[scope], None if x else scope)
                start = ends.means(mine, quantity=NEAR)["value"] if quantity == FAR else []
                ax.plot(np.full(len(start), x + side), start, "_", color="#767c85", ms=12, mew=2)
        ax.set_xticks(range(len(runs)), runs, rotation=30, ha="right")
        ax.set(title=quantity, xlim=(-0.5, len(runs) - 0.5), ylim=(0, None))
    axes[0, 0].axhline(1, color="#767c85", lw=0.8, ls="--")
    axes[0, 0].legend()
    return fig


def mixed_table(tidied: pd.DataFrame) -> str:
    """One row per demonstrator and scope, every quantity with its interval over parents."""
    groups = tidied.groupby(["run", "scope"], sort=False)
    return ends.table(["demonstrator", "tasks", "parents", *QUANTITIES], [
        [run, scope, mine["parents"].max(), *(ends.said(mine, quantity=quantity) for quantity in QUANTITIES)]
        for (run, scope), mine in groups])


def own_verdict(frame: pd.DataFrame, scope: str) -> Verdict:
    """own-stays-liquid in the tasks of one scope: liquidity after SFT by every narrator's own law, over the base's."""
    mine = in_scope(frame[frame["run"] == world.OWN], scope)
    return ends.judge("own-stays-liquid", branches.per_parent(mine, ends.kept))


# --- the mixture or the winner? --------------------------------------------------------------------------------------


def voices_of(run: str = TWO) -> tuple[str, tuple[str, ...]]:
    """The mixture that a run demonstrates, and the laws it is mixed of."""
    mixture = next(one.set["temperament"] for one in experiments.load_experiment(EXPERIMENT).runs if one.name == run)
    return mixture, world.voices(mixture)[0]


def load_winner(run: str = TWO, parents: Sequence[str] = ()) -> pd.DataFrame:
    """Columns parent, task, scope, law, jsd, jsd_before: bits from the mean answer to the mixture and to each of its laws.

    Tasks in which the laws are one are left out: there mixture and winner are the same.
    """
    mixture, names = voices_of(run)
    frames = []
    for law in (mixture, *names):
        mine = ends.load_ends(EXPERIMENT, [run], parents=parents, intended=law)
        mine = mine[[task not in one_law(names) for task in mine["task"]]]
        frames.append(mine[["parent", "task", "scope"]].assign(
            law="the mixture" if law == mixture else law, jsd=mine["to_law"], jsd_before=mine["to_law_before"]))
    return pd.concat(frames, ignore_index=True)


def one_law(names: Sequence[str]) -> set[str]:
    """Tasks in which these laws differ by no more than `branches.SAME`."""
    laws = {task: [world.law(name, TASKS[task]) for name in names] for task in PHASE_TASKS}
    return {task for task, two in laws.items() if max(tv(two[0], law) for law in two) <= branches.SAME}


def load_nearest(winner: pd.DataFrame) -> pd.DataFrame:
    """Columns scope, law, before, after, rows: the share of tasks and parents whose mean answer is nearest to it."""
    rows = []
    for scope in SCOPES:
        mine = in_scope(winner, scope)
        nearest = {when: mine.pivot(index=["parent", "task"], columns="law", values=column).idxmin(axis=1)
                   for when, column in (("before", "jsd_before"), ("after", "jsd"))}
        rows += [{"scope": scope, "law": law, **{when: (found == law).mean() for when, found in nearest.items()},
                  "rows": len(nearest["after"])} for law in dict.fromkeys(winner["law"])]
    return pd.DataFrame(rows)


def load_distances(winner: pd.DataFrame) -> pd.DataFrame:
    """Tidy frame by law and scope: mean distance over tasks before and after SFT, bits."""
    quantities = {"before SFT": lambda mine: mine["jsd_before"].mean(), "after SFT": lambda mine: mine["jsd"].mean()}
    return ends.tidy(winner, ["law", "scope"], quantities)


def plot_distances(distances: pd.DataFrame) -> Figure:
    """Distance to the mixture and to each of its laws, before (grey) and after SFT, one panel per scope."""
    laws = list(dict.fromkeys(distances["law"]))
    fig, axes = panels(1, len(SCOPES), 7.2, 2.8, sharey=True)
    for ax, scope in zip(axes[0], SCOPES, strict=True):
        for side, (when, colour, marker) in zip((-0.12, 0.12), (("before SFT", "#767c85", "D"), ("after SFT", "#0072B2", "o")),
                                                strict=True):
            for x, law in enumerate(laws):
                mine = distances[(distances["law"] == law) & (distances["scope"] == scope) & (distances["quantity"] == when)]
                draw_spots(ax, x + side, mine, colour, marker, None if x else when)
        ax.set_xticks(range(len(laws)), laws)
        ax.set(title=f"{scope} tasks", xlim=(-0.5, len(laws) - 0.5), ylim=(0, None))
    axes[0, 0].set_ylabel("JSD to the law, bits")
    axes[0, 0].legend()
    return fig


# --- a stranger ------------------------------------------------------------------------------------------------------


def load_landing(frame: pd.DataFrame, run: str = STRANGER) -> pd.DataFrame:
    """Columns scope, law, before, after, rows: of the five laws, how often each is the one found."""
    mine = frame[frame["run"] == run]
    return pd.DataFrame([
        {"scope": scope, "law": law, "before": (part["found_before"] == law).mean(), "after": (part["found"] == law).mean(),
         "rows": len(part)} for scope, part in ((scope, in_scope(mine, scope)) for scope in SCOPES) for law in LAWS])


def share_table(shares: pd.DataFrame, of: str) -> str:
    """A frame with before and after as a MyST table, in per cent of its rows."""
    told = [[f"{100 * share:.0f} %" if np.isfinite(share) else "–" for share in shares[when]] for when in ("before", "after")]
    rows = zip(shares["scope"], shares["law"], shares["rows"], *told, strict=True)
    return ends.table(["tasks", of, "tasks and parents", "before SFT", "after SFT"], rows)
