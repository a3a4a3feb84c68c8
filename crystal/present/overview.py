"""Figures across tasks: which claim held where, and by how much.

Pairs of `load_x` and `plot_x`, as in `crystal.present.figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.ladders import load_ladder
from ..ask.prompts import NARRATORS
from ..measure import answered, chain
from ..measure.joint import Account
from ..measure.judging import Verdict
from ..measure.marks import MARKS
from ..texts import label
from . import show, telling
from .axes import COLOURS as HUES
from .figures import panels, title_of
from .views import NATIVE, each_ladder

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

COLOURS = {
    "holds": "#009E73",
    "fails": "#D55E00",
    "undecided": "#b8bcc2",
    chain.NOT_TESTABLE: "#e3e6ea",
    chain.NOT_REACHED: "#eef0f2",
    chain.NOT_MEASURABLE: "#f4f4f4",
}
SIGNS = {"holds": "✓", "fails": "✗", "undecided": "?", chain.NOT_TESTABLE: "∅",
         chain.NOT_REACHED: "·", chain.NOT_MEASURABLE: "–"}


def load_verdicts(found: Mapping[str, Mapping[str, Sequence[Verdict]]]) -> pd.DataFrame:
    """One row per ladder, claim and task. found: ladder -> task -> verdicts, as `crystal.present.verdicts.survey` gives them."""
    return pd.DataFrame([
        {"ladder": ladder, "task": task, "claim": v.claim, "verdict": v.verdict, "value": v.estimate.value, "low": v.estimate.low,
         "high": v.estimate.high, "p": v.p, "mark": v.mark.mark, "side": v.mark.side, "number": v.mark.number}
        for ladder, tasks in found.items() for task, verdicts in tasks.items() for v in verdicts
    ])


def load_counts(found: Mapping[str, Mapping[str, Sequence[Verdict]]]) -> pd.DataFrame:
    """One row per ladder and claim: on how many tasks it holds, fails, and so on, by verdict.

    over_tasks: the verdict on all tasks together. held_out: tasks the SFT data never showed, 0
    where that is not known. Claims about all tasks at once have no rows.
    """
    rows = []
    for ladder, tasks in found.items():
        demonstrated = load_ladder(ladder).demonstrated
        whole = {v.claim: v.verdict for v in tasks.get(chain.POOLED, ())}
        alone = {task: verdicts for task, verdicts in tasks.items() if task != chain.POOLED}
        for claim in dict.fromkeys(v.claim for verdicts in alone.values() for v in verdicts):
            mine = {task: v for task, verdicts in alone.items() for v in verdicts if v.claim == claim}
            held_out = [v.verdict == "holds" for task, v in mine.items() if task not in demonstrated] if demonstrated else []
            rows.append(
                {"ladder": ladder, "claim": claim, "tasks": len(mine)}
                | {
                    verdict.replace("-", "_"): sum(v.verdict == verdict for v in mine.values())
                    for verdict in COLOURS
                }
                | {
                    "over_tasks": whole.get(claim, "–"),
                    "held_out_holds": sum(held_out),
                    "held_out": len(held_out),
                }
            )
    return pd.DataFrame(rows)


def sentence(row) -> str:
    """One row of `load_counts` in words, without its claim and ladder."""
    return telling.counted({v: getattr(row, v.replace("-", "_")) for v in chain.VERDICTS}, row.tasks)


def table(counts: pd.DataFrame) -> str:
    """`load_counts` as a MyST table."""
    head = ["ladder", "claim", "all tasks", "holds", "fails", "undecided", "not testable",
            "not reached", "held out"]
    lines = []
    for row in counts.itertuples():
        held_out = f"{row.held_out_holds} of {row.held_out}" if row.held_out else "–"
        lines.append([title_of(row.ladder), row.claim, row.over_tasks, row.holds, row.fails,
                      row.undecided, row.not_testable, row.not_reached, held_out])
    return show.table(head, lines)


def load_undecided(found: Mapping[str, Mapping[str, Sequence[Verdict]]]) -> pd.DataFrame:
    """One row per ladder, claim and reason why it is undecided: on which `tasks`, most first within a claim."""
    rows = [{"ladder": ladder, "claim": v.claim, "reason": v.reason, "task": task}
            for ladder, tasks in found.items() for task, verdicts in tasks.items() for v in verdicts if v.verdict == "undecided"]
    frame = pd.DataFrame(rows, columns=["ladder", "claim", "reason", "task"])
    whys = frame.groupby(["ladder", "claim", "reason"], sort=False)["task"].agg(tasks=list).reset_index()
    order = {claim: n for n, claim in enumerate(MARKS)}
    return whys.iloc[np.lexsort((-whys["tasks"].map(len), whys["claim"].map(order), whys["ladder"].map(list(found).index)))]


def reasons(undecided: pd.DataFrame) -> str:
    """The rows of one ladder and claim of `load_undecided` in words: on how many tasks for which reason."""
    return "; ".join(f"on {len(row.tasks)}, {row.reason}" for row in undecided.itertuples())


def undecided_table(undecided: pd.DataFrame) -> str:
    """`load_undecided` as a MyST table."""
    return show.table(["ladder", "claim", "why", "tasks"], (
        [title_of(row.ladder), row.claim, row.reason, ", ".join(row.tasks)]
        for row in undecided.itertuples()))


def load_leftover(readouts: pd.DataFrame) -> pd.DataFrame:
    """One row per ladder and stage's end, native form: mean off-support and unresolved mass; most:
    the worst task; answered, asked: prompts, over all tasks; median: of the mass answered; few:
    tasks that too few prompts answer.
    """
    forms = dict(NATIVE)
    picked = readouts[readouts["rung"].isin(forms) & (readouts["form"] == readouts["rung"].map(forms))]
    tasks = picked.groupby(["ladder", "rung", "task"], sort=False)[["off_support", "unresolved"]].mean()
    out = tasks.groupby(["ladder", "rung"], sort=False).mean()
    out["most"] = tasks.groupby(["ladder", "rung"], sort=False)["off_support"].max()
    mass = picked.assign(mass=picked["probability"].map(np.sum))
    for place, mine in mass.groupby(["ladder", "rung"], sort=False):
        found = answered.count(mine["mass"].to_numpy())
        few = sum(
            not answered.count(one.to_numpy()).measurable for _, one in mine.groupby("task")["mass"]
        )
        out.loc[place, ["answered", "asked", "median", "few"]] = (
            found.answered,
            found.asked,
            found.median,
            few,
        )
    return out.astype({"answered": int, "asked": int, "few": int}).reset_index()


def answered_told(left: pd.DataFrame) -> str:
    """`load_leftover` in sentences, as a MyST list: what was answered, ladder by ladder."""
    said = []
    for ladder, mine in each_ladder(left):
        parts = [
            f"{row.rung}, {answered.Count(row.answered, row.asked, row.median).said}"
            + (f", {row.few} tasks not measurable" if row.few else "")
            for row in mine.itertuples()
        ]
        said.append(f"{title_of(ladder)}: {'; '.join(parts)}.")
    return show.listed(said)


def plot_matrix(frame: pd.DataFrame) -> Figure:
    """Tasks down, claims across, a sign and a colour per verdict."""
    tasks = list(frame["task"].unique())
    claims = [claim for claim in MARKS if claim in set(frame["claim"])]
    names, count = [label(task) for task in tasks], frame["ladder"].nunique()
    width = max(7.2, 0.075 * max(map(len, names)) + 1.5 * count)
    fig, axes = panels(1, count, width, 0.28 * len(tasks) + 1.6, sharey=True)
    for ax, (ladder, mine) in zip(axes[0], each_ladder(frame), strict=True):
        for row in mine.itertuples():
            x, y = claims.index(row.claim), tasks.index(row.task)
            ax.add_patch(_square(x, y, COLOURS[row.verdict]))
            ax.text(x, y, SIGNS[row.verdict], ha="center", va="center", color="black")
        ax.set_xticks(range(len(claims)), claims, rotation=40, ha="right")
        ax.set_yticks(range(len(tasks)), names)
        ax.set(xlim=(-0.5, len(claims) - 0.5), ylim=(len(tasks) - 0.5, -0.5))
        ax.set_title(label(title_of(ladder), wide=18))
        ax.grid(False)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    shown = [
        verdict
        for verdict in COLOURS
        if verdict in (*chain.TESTED, *frame["verdict"])
    ]
    handles = [_square(0, 0, COLOURS[verdict]) for verdict in shown]
    fig.legend(
        handles, [f"{SIGNS[v]} {v}" for v in shown], loc="outside lower center", ncols=len(shown)
    )
    return fig


def _square(x: float, y: float, colour: str) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, color=colour, lw=0)


def plot_forest(frame: pd.DataFrame) -> Figure:
    """One panel per claim: every task's number with its interval; the mark is the line, the shaded side is the claim's."""
    tasks, claims, ladders = list(frame["task"].unique()), list(frame["claim"].unique()), list(frame["ladder"].unique())
    columns = min(4, len(claims))
    height = 0.15 * len(tasks) * len(ladders) + 1.4
    fig, axes = panels(-(-len(claims) // columns), columns, max(5.0, 2.4 * columns), height, sharey=True)
    for ax in axes.flat[len(claims):]:
        ax.set_visible(False)
    for ax, (claim, mine) in zip(axes.flat, frame.groupby("claim", sort=False), strict=False):
        limit = _forest_limit(mine)
        for row in mine.dropna(subset="value").itertuples():
            y = tasks.index(row.task) + 0.25 * (ladders.index(row.ladder) - (len(ladders) - 1) / 2)
            ax.plot(np.clip([row.low, row.high], 0, limit), [y, y], color=COLOURS[row.verdict])
            shape = ">" if row.value > limit else "os^D"[ladders.index(row.ladder) % 4]
            ax.plot(min(row.value, limit), y, shape, color=COLOURS[row.verdict], ms=4)
        mark, above = mine["mark"].iloc[0], mine["side"].iloc[0] == "above"
        ax.axvspan(mark if above else 0, limit if above else mark, color=COLOURS["holds"], alpha=0.1, lw=0)
        ax.axvline(mark, color="#767c85", lw=1)
        ax.set_yticks(range(len(tasks)), map(label, tasks))
        ax.set(xlim=(0, limit), ylim=(len(tasks) - 0.5, -0.5), title=claim)
    if len(ladders) > 1:
        shapes = [axes[0, 0].plot([], [], "os^D"[k % 4], color="#767c85", ms=4)[0] for k in range(len(ladders))]
        names = [label(title_of(ladder)) for ladder in ladders]
        fig.legend(shapes, names, loc="outside lower center", ncols=len(ladders))
    return fig


def load_contexts(accounts: Mapping[str, Account], task: str) -> pd.DataFrame:
    """The joint test: one row per ladder, context and task: cosine of SFT's move with the way to
    what the context says in the base; mean over tasks; group of contexts; this: the page's task.

    accounts: ladder -> `crystal.measure.joint.account`.
    """
    frames = []
    for ladder, found in accounts.items():
        cosine = np.array(found.cosine, float)
        mean = np.nanmean(cosine, axis=0)
        order = np.argsort(-mean, kind="stable")
        place = np.argsort(order)
        groups = [found.group[found.contexts[n]] for n in order]
        colour = {group: n for n, group in enumerate(dict.fromkeys(groups))}  # as ladders show them
        for row, name in zip(cosine, found.tasks, strict=True):
            frames.append(pd.DataFrame({
                "ladder": ladder, "context": found.contexts, "place": place, "task": name,
                "this": name == task, "cosine": row, "mean": mean,
                "group": [colour[found.group[context]] for context in found.contexts],
                "named": np.equal(found.contexts, found.seeds.get(task, ""))}))
    return pd.concat(frames, ignore_index=True)


def plot_contexts(frame: pd.DataFrame) -> Figure:
    """Contexts in order of their mean cosine (bars, coloured by group), tasks as dots; this page's
    task is the diamond."""
    fig, axes = panels(frame["ladder"].nunique(), 1, 7.2, 2.9)
    hues = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#767c85")
    for ax, (ladder, mine) in zip(axes[:, 0], each_ladder(frame), strict=True):
        each = mine.drop_duplicates("context").sort_values("place")
        ax.bar(each["place"], each["mean"], color=[hues[g % len(hues)] for g in each["group"]],
               alpha=0.55, width=0.8)
        ax.plot(mine["place"], mine["cosine"], ".", color=HUES["chance"], ms=3, label="a task")
        this = mine[mine["this"]]
        ax.plot(this["place"], this["cosine"], "D", color=HUES["sft"], ms=4, label="this task")
        who = [NARRATORS[int(c)] if c.isdecimal() and int(c) < len(NARRATORS) else c
               for c in each["context"]]
        ax.set_xticks(each["place"], map(label, who), rotation=90)
        for tick, named in zip(ax.get_xticklabels(), each["named"], strict=True):
            tick.set_weight("bold" if named else "normal")
        ax.axhline(0, color=HUES["chance"], lw=0.8)
        ax.set(ylim=(-1.05, 1.05), ylabel="cosine with SFT's move", title=label(title_of(ladder)))
    axes[0, 0].legend(loc="upper right", ncols=2)
    return fig


def _forest_limit(mine: pd.DataFrame) -> float:
    """Right end of a panel: the data or thrice the mark, whichever is less, so that one wild task does not flatten the rest."""
    mark, finite = mine["mark"].iloc[0], mine["high"].replace(np.inf, np.nan)
    return float(np.nanmax([min(finite.max(), max(3 * mark, 1.05)), 1.2 * mark]) * 1.04)
