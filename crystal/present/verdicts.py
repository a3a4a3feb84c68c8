"""The claims on a ladder of the store: computed once and kept; told and drawn across tasks.

A survey is kept in the cache under what it rests on: the ladder's read-outs, the code that
measures, and the parameters.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import files
from ..ask.ladders import load_ladder
from ..ask.prompts import PERSONAS, PROMPTS, Prompt, load_prompts
from ..ask.tasks import PHASE_TASKS, TASKS
from ..files import PACKAGE
from ..keep import store
from ..measure import chain
from ..measure.chain import Survey
from ..measure.claims import QUANTILE, THRESHOLDS, Verdict
from ..measure.evidence import Count, count
from ..measure.inference import Estimate, Null
from ..measure.joint import Account
from ..texts import label
from . import show, views
from .figures import GREY, HUES, INK, LETTER, LINE, PAPER, each_panel, legend, name_rows, panels
from .views import NATIVE, compared, each_ladder, estimated, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KIND = "surveys"  # the folder in the cache
COLOURS = {
    "holds": "#009E73",
    "fails": "#D55E00",
    "undecided": "#b8bcc2",
    chain.NOT_TESTABLE: "#e3e6ea",
    chain.NOT_REACHED: "#eef0f2",
    chain.NOT_MEASURABLE: "#f4f4f3",
}
SIGNS = dict(zip(COLOURS, "✓✗?∅·–", strict=True))
SHAPES = "os^D"  # a ladder's
Found = Mapping[str, Mapping[str, Sequence[Verdict]]]  # ladder -> task -> verdicts


def parts(readouts: pd.DataFrame, task: str, final: str = "rlvr") -> chain.Parts:
    """What each phase compares, where its checkpoints were read. readouts: of one ladder."""
    found, prompts, places = {}, asked(readouts), ("base", "sft", final)
    there = set(readouts["checkpoint"].unique())
    for n, phase in enumerate(chain.CLAIMS, 1):
        if there.issuperset(places[:n]):
            on = compared(readouts, task, *places[:n], prompts=prompts)
            evidence = [on.evidence(place) for place in places[:n]]
            found[phase] = evidence if on.count.measurable else on.count
    return found


def asked(readouts: pd.DataFrame) -> Sequence[Prompt]:
    """The prompts that a ladder was read on: of the cast, or the natural ones."""
    there = set(readouts["prompt"].unique())
    return PROMPTS if any(prompt.id in there for prompt in PROMPTS) else load_prompts()


def survey(readouts: pd.DataFrame, *, final: str = "rlvr", **how) -> Survey:
    """Every claim on all tasks of one ladder's read-outs; `how` as in `chain.survey`."""
    tasks = readouts["task"].unique()
    every = {task: parts(readouts, task, final) for task in tasks}
    return chain.survey(every, {task: TASKS[task].options for task in tasks}, **how)


def measured(
    ladder: str,
    *,
    final: str = "rlvr",
    quantile: float = QUANTILE,
    seed: int = 0,
    permutations: int = 999,
) -> Survey:
    """`survey` of a ladder's read-outs in the store, computed where it is not kept."""
    how = {"final": final, "quantile": float(quantile), "seed": seed, "permutations": permutations}

    def fresh() -> Survey:
        chain.check(quantile=quantile, seed=seed, permutations=permutations)
        there = {c.name for c in load_ladder(ladder).checkpoints}
        names = [name for name in ("base", "sft", final) if name in there]
        return survey(store.load_readouts(ladder, checkpoints=names, tasks=PHASE_TASKS), **how)

    return kept([ladder, how, store.manifest_digest(ladder)], fresh)


def kept(rests_on: Sequence[Any], fresh: Callable[[], Survey]) -> Survey:
    """A survey, computed where it is not kept. rests_on: beside the code that measures."""
    code = [*sorted((PACKAGE / "measure").glob("*.py")), Path(views.__file__), Path(__file__)]
    key = [json.dumps(rests_on, sort_keys=True), *map(files.file_sha256, code)]

    def packed() -> dict[str, np.ndarray]:
        return {"json": np.frombuffer(as_json(fresh()).encode(), np.uint8)}

    return of_json(files.kept(KIND, key, packed)["json"].tobytes())


def measure(ladder: str, how: dict[str, Any]) -> float:
    """Seconds that `measured` took; 0 where all was kept."""
    began, folder = time.perf_counter(), files.cache() / KIND
    before = set(folder.glob("*"))
    measured(ladder, **how)
    return time.perf_counter() - began if set(folder.glob("*")) - before else 0.0


def as_json(found: Survey) -> str:
    """A survey; of a null's draws, the only array in it, nothing is kept."""
    return json.dumps(dataclasses.asdict(found), default=lambda draws: draws[:0].tolist())


def of_json(text: bytes) -> Survey:
    """The same of JSON."""
    fields = json.loads(text)
    verdicts = {task: [_verdict(v) for v in mine] for task, mine in fields["verdicts"].items()}
    return Survey(verdicts, Account(**fields["account"]) if fields["account"] else None)


def _verdict(fields: dict[str, Any]) -> Verdict:
    null = fields["null"] and Null(**fields["null"] | {"draws": np.array(fields["null"]["draws"])})
    return Verdict(**fields | {"estimate": Estimate(**fields["estimate"]), "null": null})


# -- across tasks


def load_verdicts(found: Found) -> pd.DataFrame:
    """One row per ladder, claim and task. found: as `survey` or `tabled.survey` gives them."""
    rows = [
        {"ladder": ladder, "task": task, "claim": v.claim, "verdict": v.verdict}
        | {"reason": v.reason, **estimated(v.estimate), "p": v.p}
        | {"threshold": v.threshold.value, "side": v.threshold.side, "number": v.threshold.number}
        for ladder, tasks in found.items()
        for task, verdicts in tasks.items()
        for v in verdicts
    ]
    return pd.DataFrame(rows, columns=None if rows else ["ladder", "task", "claim", "verdict"])


def load_counts(found: Found) -> pd.DataFrame:
    """One row per ladder and claim about single tasks: on how many it holds, fails, and so on.

    over_tasks: the verdict on all tasks together. held_out: tasks the SFT data never showed, 0
    where that is not known.
    """
    frame, place, rows = load_verdicts(found), ["ladder", "claim"], []
    pooled = frame["task"] == chain.POOLED
    whole = frame[pooled].set_index(place)["verdict"].to_dict()
    for (ladder, claim), mine in frame[~pooled].groupby(place, sort=False):
        shown, each = load_ladder(ladder).demonstrated, mine["verdict"].value_counts()
        apart = mine[~mine["task"].isin(shown)] if shown else mine[:0]
        row = {"ladder": ladder, "claim": claim, "tasks": len(mine)}
        row |= {v.replace("-", "_"): int(each.get(v, 0)) for v in chain.VERDICTS}
        row |= {"over_tasks": whole.get((ladder, claim), "–")}
        held = int((apart["verdict"] == "holds").sum())
        rows.append(row | {"held_out_holds": held, "held_out": len(apart)})
    return pd.DataFrame(rows)


def sentence(row) -> str:
    """One row of `load_counts` in words."""
    return show.counted({v: getattr(row, v.replace("-", "_")) for v in chain.VERDICTS}, row.tasks)


def table(counts: pd.DataFrame) -> str:
    """`load_counts` as a MyST table."""
    columns = ["over_tasks", "holds", "fails", "undecided", "not_testable", "not_reached"]
    head = [column.replace("over", "all").replace("_", " ") for column in columns]
    rows = []
    for row in counts.to_dict("records"):
        held_out = f"{row['held_out_holds']} of {row['held_out']}" if row["held_out"] else "–"
        rows.append([title_of(row["ladder"]), row["claim"], *map(row.get, columns), held_out])
    return show.table(["ladder", "claim", *head, "held out"], rows)


def load_undecided(found: Found) -> pd.DataFrame:
    """One row per ladder, claim and reason why it is undecided: on which `tasks`, most first."""
    frame, place = load_verdicts(found), ["ladder", "claim", "reason"]
    frame = frame[frame["verdict"] == "undecided"].reindex(columns=[*place, "task"])
    whys = frame.groupby(place, sort=False)["task"].agg(tasks=list).reset_index()
    ladder, claim = whys["ladder"].map(list(found).index), whys["claim"].map(list(THRESHOLDS).index)
    most = -whys["tasks"].map(len).astype(int)  # of no reasons: text
    return whys.iloc[np.lexsort((most, claim, ladder))]


def undecided_table(undecided: pd.DataFrame) -> str:
    """`load_undecided` as a MyST table."""
    found = undecided.itertuples()
    rows = ([title_of(r.ladder), r.claim, r.reason, ", ".join(r.tasks)] for r in found)
    return show.table(["ladder", "claim", "why", "tasks"], rows)


def load_leftover(readouts: pd.DataFrame) -> pd.DataFrame:
    """One row per ladder and stage's end: mean invalid-answer and residual mass; most:
    invalid-answer on the worst task; answered, asked: prompts, over all tasks; median: of the mass
    answered; few: tasks that too few prompts answer.
    """
    native, rows = readouts[readouts["form"] == readouts["checkpoint"].map(NATIVE)], []
    for (ladder, checkpoint), mine in native.groupby(["ladder", "checkpoint"], sort=False):
        left = mine.groupby("task", sort=False)[["invalid", "residual"]].mean()
        mass = mine["probability"].map(np.sum)
        few = mass.groupby(mine["task"]).agg(lambda one: not count(one.to_numpy()).measurable).sum()
        row = {"ladder": ladder, "checkpoint": checkpoint, **left.mean()}
        row |= {"most": left["invalid"].max(), **vars(count(mass.to_numpy())), "few": int(few)}
        rows.append(row)
    return pd.DataFrame(rows)


def answered_text(left: pd.DataFrame) -> str:
    """`load_leftover` as a MyST list: what was answered, ladder by ladder."""
    sentences = []
    for ladder, mine in each_ladder(left):
        parts = []
        for row in mine.itertuples():
            few = f", {row.few} tasks not measurable" if row.few else ""
            found = Count(row.answered, row.asked, row.median)
            parts.append(f"{row.checkpoint}, {found.said}{few}")
        sentences.append(f"{title_of(ladder)}: {'; '.join(parts)}.")
    return show.listed(sentences)


# -- drawn


def grid(ax: Axes, table: pd.DataFrame, texts: pd.DataFrame, **how) -> None:
    """Coloured cells with their texts. how: as of the heat map."""
    import seaborn as sns

    sns.heatmap(table, annot=texts, fmt="", ax=ax, cbar=False, linewidths=1.5, **how)
    for text in ax.texts:  # seaborn's own colours would be mirrored on a dark page
        text.set_color(PAPER if text.get_color() == "w" else INK)
    ax.grid(False)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(length=0)


def plot_matrix(frame: pd.DataFrame) -> Figure:
    """Tasks down, claims across, a sign and a colour per verdict."""
    tasks, count = list(frame["task"].unique()), frame["ladder"].nunique()
    claims = [claim for claim in THRESHOLDS if claim in set(frame["claim"])]
    names = [label(task) for task in tasks]
    width = LETTER * max(map(len, names)) + 1.5 * count
    fig, axes = panels(1, count, 0.19 * len(tasks) + 1.6, width, sharey=True)
    for ax, (ladder, mine) in zip(axes[0], each_ladder(frame), strict=True):
        cells = mine.pivot(index="task", columns="claim", values="verdict")
        cells = cells.reindex(index=tasks, columns=claims)
        place = cells.map(list(COLOURS).index, na_action="ignore").astype(float)
        how = {"cmap": [*COLOURS.values()], "vmin": 0, "vmax": len(COLOURS)}
        grid(ax, place, cells.map(SIGNS.get), yticklabels=names, **how)
        for text in ax.texts:
            text.set_color(INK)
        ax.set_xticks(ax.get_xticks(), claims, rotation=90)
        ax.set_title(label(title_of(ladder), wide=18))
    for verdict, colour in COLOURS.items():
        if verdict in (*chain.TESTED, *frame["verdict"]):
            look = {"color": colour, "label": f"{SIGNS[verdict]} {verdict}"}
            axes[0, 0].plot([], [], "s", ms=8, **look)
    return legend(fig)


def plot_forest(frame: pd.DataFrame) -> Figure:
    """A panel per claim: every task's number and interval; the shaded side is the claim's."""
    tasks, claims, ladders = (list(frame[c].unique()) for c in ("task", "claim", "ladder"))
    columns, count, names = min(3, len(claims)), len(ladders), [label(task) for task in tasks]
    height = max(LINE, 0.07 * count) * len(tasks) + 0.75
    width = LETTER * max(map(len, names)) + 1.07 * columns
    fig, axes = panels(-(-len(claims) // columns), columns, height, width, sharey=True)
    for ax in axes.flat[len(claims) :]:
        ax.set_visible(False)
    for ax, (claim, mine) in zip(axes.flat, frame.groupby("claim", sort=False), strict=False):
        threshold, above = mine["threshold"].iloc[0], mine["side"].iloc[0] == "above"
        high = mine["high"].replace(np.inf, np.nan).max()
        # the data or thrice the threshold: one wild task must not flatten the rest
        limit = float(np.nanmax([min(high, max(3 * threshold, 1.05)), 1.2 * threshold]) * 1.04)
        lowest = mine[["low", "value"]].replace(-np.inf, np.nan).min().min()
        least = float(max(np.fmin(lowest, 0), -limit))  # numbers below 0 are shown; none gives 0
        for row in mine.dropna(subset="value").itertuples():
            n, colour = ladders.index(row.ladder), COLOURS[row.verdict]
            y = tasks.index(row.task) + 0.25 * (n - (count - 1) / 2)
            ax.plot(np.clip([row.low, row.high], least, limit), [y, y], color=colour)
            beyond = ">" if row.value > limit else "<" if row.value < least else SHAPES[n % 4]
            ax.plot(np.clip(row.value, least, limit), y, beyond, color=colour, ms=3)
        side = (threshold, limit) if above else (least, threshold)
        ax.axvspan(*side, color=COLOURS["holds"], alpha=0.1, lw=0)
        ax.axvline(threshold, color=GREY, lw=1)
        name_rows(ax, names)
        ax.set(xlim=(least, limit), title=label(claim, wide=13))
    if count == 1:
        return fig
    for n, ladder in enumerate(ladders):
        axes[0, 0].plot([], [], SHAPES[n % 4], color=GREY, label=label(title_of(ladder)))
    return legend(fig)


def load_contexts(accounts: Mapping[str, Account], task: str) -> pd.DataFrame:
    """The joint test, one row per ladder, context and task. cosine: of SFT's move with the way to
    what the context says in the base; mean: over tasks; group: of contexts that say alike; this:
    the page's task; named: the context is its seed.
    """
    frames = []
    for ladder, found in accounts.items():
        cosine = pd.DataFrame(found.cosine, found.tasks, found.contexts, dtype=float)
        each = cosine.mean().sort_values(ascending=False, kind="stable").to_frame("mean")
        each["place"] = range(len(each))
        each["group"] = pd.factorize(each.index.map(found.group))[0]  # in the order of the bars
        each["named"] = each.index == found.seeds.get(task, "")
        every = cosine.stack(future_stack=True).rename_axis(["task", "context"]).rename("cosine")
        frames.append(every.reset_index().join(each, on="context").assign(ladder=ladder))
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(this=frame["task"] == task)


def plot_contexts(frame: pd.DataFrame) -> Figure:
    """Contexts by mean cosine (bars, coloured by group), tasks as dots, this task a diamond."""
    fig, pairs = each_panel(frame, 2.6, down=True)
    for ax, mine in pairs:
        each = mine.drop_duplicates("context").sort_values("place")
        colours = [HUES[g % len(HUES)] for g in each["group"]]
        ax.bar(each["place"], each["mean"], color=colours, alpha=0.55)
        ax.plot(mine["place"], mine["cosine"], ".", color=GREY, ms=3, label="a task")
        this = mine[mine["this"]]
        ax.plot(this["place"], this["cosine"], "D", color=HUES[0], label="this task")
        who = [label(PERSONAS[int(context)]) for context in each["context"]]
        ax.set_xticks(each["place"], who, rotation=90)
        for tick, named in zip(ax.get_xticklabels(), each["named"], strict=True):
            tick.set_weight("bold" if named else "normal")
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set(ylim=(-1.05, 1.05), ylabel="cosine with SFT's move")
    return legend(fig)
