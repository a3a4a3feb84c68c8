"""The claims over training runs: the same verdicts on every replica, how far they agree, and intervals over runs and narrators.

`found` is parent -> task -> verdicts, as `crystal.present.verdicts.survey` gives them. A claim's number of a parent is the
median over tasks: some of the numbers are ratios that a task can drive to infinity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..measure.answered import NOT_MEASURABLE
from ..measure.inference import ALPHA
from ..measure.judging import Verdict
from ..measure.marks import MARKS
from ..present import show
from ..present.figures import COLOURS, panels
from .branches import family, over_parents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = Mapping[str, Mapping[str, Sequence[Verdict]]]
MARKERS = "os^D"
GRID = (np.arange(1000) + 0.5) / 1000
ENDS = (ALPHA / 2, 1 - ALPHA / 2)


def load_replicas(found: Found) -> pd.DataFrame:
    """One row per parent and claim: median over tasks with its interval over narrators, and on how many tasks it holds."""
    rows = []
    for parent, tasks in found.items():
        for claim in dict.fromkeys(v.claim for verdicts in tasks.values() for v in verdicts):
            mine = [v for verdicts in tasks.values() for v in verdicts if v.claim == claim]
            number, law = _median(mine)
            low, high = np.quantile(law, ENDS)
            rows.append({"family": family(parent), "parent": parent, "claim": claim, "number": number, "low": float(low),
                         "high": float(high), "holds": sum(v.verdict == "holds" for v in mine),
                         "fails": sum(v.verdict == "fails" for v in mine), "tasks": len(mine)})
    return pd.DataFrame(rows)


def _median(verdicts: Sequence[Verdict]) -> tuple[float, np.ndarray]:
    """Median over tasks, and quantiles at GRID of its law over narrators.

    Quantile by quantile, as if a narrator moved all tasks alike: that makes the interval wide.
    """
    value = float(np.nanmedian([v.estimate.value for v in verdicts]))
    return value, np.nanmedian([v.estimate.quantiles(GRID) for v in verdicts if not np.isnan(v.estimate.error)], axis=0)


def load_families(found: Found) -> pd.DataFrame:
    """One row per family and claim: mean over its parents with three intervals, over training runs (Student's t, `run_`), over
    narrators (`prompt_`, runs fixed), and over both (`both_`). Nan over runs and both for one parent.

    The same narrators speak to every run, so their error adds to that of the mean over runs, at its few degrees of freedom:
    never narrower than over runs alone.
    agree: of the tasks on which any parent decides, the share on which all give one verdict; decided: of all tasks, those.
    """
    rows = []
    families = dict.fromkeys(family(parent) for parent in found)
    for name in families:
        parents = [parent for parent in found if family(parent) == name]
        for claim in dict.fromkeys(v.claim for verdicts in found[parents[0]].values() for v in verdicts):
            mine = [[v for verdicts in found[p].values() for v in verdicts if v.claim == claim] for p in parents]
            holds = [sum(v.verdict == "holds" for v in run) for run in mine]
            rows.append({"family": name, "claim": claim, "parents": len(parents), "tasks": len(mine[0]), "holds": holds}
                        | _intervals(mine) | _agreement(mine))
    return pd.DataFrame(rows)


def _intervals(runs: Sequence[Sequence[Verdict]]) -> dict[str, float]:
    """On the logarithm where the tasks' own intervals are, as a ratio cannot fall below zero."""
    numbers, laws = zip(*map(_median, runs))
    narrators = np.mean(laws, axis=0)
    logs = any(v.estimate.scale == "log" for run in runs for v in run) and min(narrators.min(), *numbers) > 0
    forth, back = (np.log, np.exp) if logs else (np.asarray, np.asarray)
    out = {"number": float(np.mean(numbers)), "run_low": np.nan, "run_high": np.nan, "both_low": np.nan, "both_high": np.nan}
    out["prompt_low"], out["prompt_high"] = map(float, np.quantile(narrators, ENDS))
    if len(runs) > 1:
        over_runs = over_parents(forth(numbers))
        both = replace(over_runs, error=float(np.hypot(over_runs.error, np.std(forth(narrators)))))
        out["number"] = float(back(over_runs.value))
        for name, found in (("run", over_runs), ("both", both)):
            out[f"{name}_low"], out[f"{name}_high"] = map(float, back(found.quantiles(np.array(ENDS))))
    return out


def _agreement(runs: Sequence[Sequence[Verdict]]) -> dict[str, float]:
    verdicts = np.array([[v.verdict for v in run] for run in runs])
    decided, alike = (
        (~np.isin(verdicts, ("undecided", NOT_MEASURABLE))).any(0),
        (verdicts == verdicts[0]).all(0),
    )
    return {"decided": int(decided.sum()), "agree": float(alike[decided].mean()) if decided.any() else np.nan}


def anew(row) -> str:
    """One row of `load_families`: on how many tasks its claim holds in the runs that are not the first."""
    held = [str(n) for n in row.holds[1:]]
    return f"{', '.join(held[:-1])}{' and ' if len(held) > 1 else ''}{held[-1]} of {row.tasks}" if held else "–"


def table(families: pd.DataFrame, replicas: pd.DataFrame, fmt) -> str:
    """Markdown: claim and family; number with its three intervals; tasks on which it holds, run by run; agreement."""
    head = ["claim", "ladder", "median over tasks", "over training runs", "over narrators",
            "over both", "holds, run by run", "runs agree, where any decides"]
    lines = []
    for row in families.itertuples():
        mine = replicas[(replicas["family"] == row.family) & (replicas["claim"] == row.claim)]
        spans = [f"[{fmt(getattr(row, f'{kind}_low', np.nan))}, {fmt(getattr(row, f'{kind}_high', np.nan))}]"
                 for kind in ("run", "prompt", "both")]
        holds = ", ".join(f"{n} of {tasks}" for n, tasks in zip(mine["holds"], mine["tasks"], strict=True))
        agree = f"{100 * row.agree:.0f} % of {row.decided}" if row.decided else "–"
        lines.append([row.claim, row.family, fmt(row.number), *spans, holds, agree])
    return show.table(head, lines)


def plot_replicas(replicas: pd.DataFrame) -> Figure:
    """One panel a claim: every training run's median over tasks with its interval over narrators, and the mark."""
    claims, parents = list(replicas["claim"].unique()), list(replicas["parent"].unique())
    families, columns = list(replicas["family"].unique()), 4
    fig, axes = panels(-(-len(claims) // columns), columns, 9.6, 0.22 * len(parents) + 1.0, sharey=True)
    for ax in axes.flat[len(claims):]:
        ax.set_visible(False)
    for ax, (claim, mine) in zip(axes.flat, replicas.groupby("claim", sort=False), strict=False):
        mark = MARKS[claim]
        right = 1.08 * max(mine["high"].replace(np.inf, np.nan).max(), mark.mark)
        for row in mine.itertuples():
            kind, y = families.index(row.family), parents.index(row.parent)
            colour = (COLOURS["sft"], COLOURS["seed"], COLOURS["dpo"], COLOURS["rlvr"])[kind % 4]
            ax.plot(np.clip([row.low, row.high], 0, right), [y, y], color=colour)
            ax.plot(min(row.number, right), y, MARKERS[kind % 4], color=colour, ms=5)
        ax.axvspan(*((mark.mark, right) if mark.side == "above" else (0, mark.mark)), color=COLOURS["rlvr"], alpha=0.1, lw=0)
        ax.axvline(mark.mark, color=COLOURS["chance"], lw=1)
        ax.set_yticks(range(len(parents)), parents)
        ax.set(xlim=(0, right), ylim=(len(parents) - 0.5, -0.5), title=claim)
    return fig
