"""How few random choices does a seed need? SFT with ever fewer of them, its answers in the demonstrator's style or in none.

The style is a suffix that, in pretraining, went with the law: if it alone moves the laws, the seed is not learnt but found.
Frames as in `crystal.studies.seed_control`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ..measure.judging import Verdict
from ..present.figures import panels
from . import branches, ends
from .ends import SCOPES
from .seed_control import in_scope

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOSES = (0, 1, 2, 5, 10, 30)  # per cent of random choices among SFT's answers; 30 is every other experiment's
STYLED, NEUTRAL = "demonstrator's style", "neutral style"
USUAL = "salient"  # the styled run of the largest dose: it is the first of the five demonstrators
RUNS = {f"styled-dose-{dose}" if dose < 30 else USUAL: (STYLED, dose) for dose in DOSES} | {
    f"neutral-dose-{dose}": (NEUTRAL, dose) for dose in DOSES}
LOOKS = {STYLED: ("#0072B2", "o", "-"), NEUTRAL: ("#D55E00", "s", "--")}
QUANTITIES = {"removed share": ends.removed, "liquidity kept": ends.kept}


def dosed(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the dose series with columns style and dose; only parents that got any dose but the usual."""
    mine = frame[frame["run"].isin(RUNS)]
    mine = mine[mine["parent"].isin(mine.loc[mine["run"] != USUAL, "parent"])]
    return mine.assign(style=[RUNS[run][0] for run in mine["run"]], dose=[RUNS[run][1] for run in mine["run"]])


def load_doses(frame: pd.DataFrame) -> pd.DataFrame:
    """Tidy frame (`ends.tidy`) by style, dose and scope: removed share and liquidity kept; sorted by dose."""
    tidied = ends.tidy(dosed(frame), ["style", "dose", "scope"], QUANTITIES)
    return tidied.sort_values(["style", "dose"], kind="stable", ignore_index=True)


def plot_doses(tidied: pd.DataFrame) -> Figure:
    """Quantities down, scopes across, one line per style; every parent an open mark. Doses stand at equal distances."""
    fig, axes = panels(len(QUANTITIES), len(SCOPES), 7.2, 2.6, sharex=True, sharey="row")
    for row, quantity in zip(axes, QUANTITIES, strict=True):
        for ax, scope in zip(row, SCOPES, strict=True):
            for side, (style, (colour, marker, line)) in zip((-0.17, 0.17), LOOKS.items(), strict=True):
                mine = in_scope(tidied[(tidied["style"] == style) & (tidied["quantity"] == quantity)], scope)
                whole = ends.means(mine)
                ax.plot([DOSES.index(dose) + side for dose in whole["dose"]], whole["value"], line, color=colour, lw=1.2)
                for k, (dose, at) in enumerate(mine.groupby("dose")):
                    ends.draw_spots(ax, DOSES.index(dose) + side, at, colour, marker, None if k else style)
            ax.axhline(0, color="#767c85", lw=0.8)
            ax.set_xticks(range(len(DOSES)), DOSES)
        row[0].set_ylabel(quantity)
    for ax, scope in zip(axes[0], SCOPES, strict=True):
        ax.set_title(f"{scope} tasks")
    for ax in axes[-1]:
        ax.set_xlabel("random choices among SFT's answers, %")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def removed_at(frame: pd.DataFrame, style: str, dose: int) -> pd.Series:
    """By parent, the removed share of all tasks together at one dose."""
    mine = dosed(frame)
    return branches.per_parent(mine[(mine["style"] == style) & (mine["dose"] == dose)], ends.removed)


def verdict(frame: pd.DataFrame) -> Verdict:
    """style-nucleates: the removed share of all tasks at dose 0, in the demonstrator's style."""
    return ends.judge("style-nucleates", removed_at(frame, STYLED, 0))
