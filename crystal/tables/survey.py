"""The claims on a table of answers of any checkpoint series, task by task and over all tasks.

Without an SFT stage the first later stage stands in its place; with one later stage only, settling
is not judged; of a base alone, only whether it is liquid. Without a base there are but numbers.
Prompts of one cluster, or of one name in several tasks, are one context. Stages are compared on the
prompts that all of them answer, where the table says that. Tasks, prompts and options are taken in
the order of their names wherever chance or a tie could see another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..ask.tasks import TASKS
from ..errors import CrystalError
from ..measure import chain
from ..measure import evidence as ev
from ..measure import quantities as ph
from ..measure.chain import NOT_MEASURABLE, POOLED
from ..measure.claims import THRESHOLDS, Verdict, finite
from ..measure.evidence import Count, Evidence, count
from ..measure.inference import Estimate, student
from ..present import show, verdicts
from ..present.figures import legend, panels
from ..present.verdicts import Found
from ..present.views import title_of
from ..texts import label
from .table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PHASES = len(chain.CLAIMS)  # that a task goes through
ACROSS = 3  # panels of answers
NAMED = 24  # options at most, in a panel
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

SAID = {  # the abstract's words, in ours
    "many-distributions": "the pretrained model is liquid: many answer distributions can be "
    "prompted out of it",
    "collapse": "at SFT all prompts collapse",
    "one-seed": "onto a seed distribution that the base already held",
    "stays-frozen": "and the crystal stays one (our reading)",
    "same-options": "DPO and RL move probability, but largely on the seed's options",
    "little-promoted": "the same, from below: what ranked low stays low (our reading)",
}


# -- the claims


class Roles(NamedTuple):
    """Which stages of a ladder are compared; "" where there is none."""

    base: str
    tuned: str
    final: str

    @property
    def told(self) -> str:
        """What stands in another's place, as a sentence; empty if nothing does."""
        if not self.base:
            return "no base, so nothing is judged"
        if not self.tuned:
            return "no later stage, so only the base is judged"
        told = [] if self.tuned == "sft" else [f"{self.tuned} stands in the place of SFT"]
        told += [] if self.final else ["no later stage, so settling is not judged"]
        return "; ".join(told)


def roles(stages: Sequence[str]) -> Roles:
    """stages: those a ladder has, in canonical order."""
    base, *later = stages if "base" in stages else ("", *stages)
    tuned = "sft" if "sft" in later else [*later, ""][0]
    later = later or [tuned]
    return Roles(base, tuned, later[-1] if later[-1] != tuned else "")


def evidence(table: Table, ladder: str, task: str, stages: Sequence = ()) -> dict[str, Evidence]:
    """Stage -> evidence of one task on the prompts that all of `stages` answer; none named: all.

    Prompts with fewer than `evidence.FEWEST` draws at any stage are left out.
    """
    mine = _of(table.frame, ladder, task)
    mine = mine[mine.groupby("prompt")["draws"].transform("min") >= ev.FEWEST]
    mine = mine[mine["stage"].isin(stages)] if stages else mine
    mine = mine[mine.groupby("prompt")["stage"].transform("nunique") == mine["stage"].nunique()]
    order = named_order(table, task) if len(mine) else []
    return {
        stage: ev.asked(
            np.stack(part["distribution"].tolist())[:, order],
            part["cluster"].to_numpy(),
            part["draws"].to_numpy(),
            part["wording"].to_numpy(),
        )
        for stage, part in mine.sort_values("prompt").groupby("stage", sort=False)
    }


def _of(frame: pd.DataFrame, ladder: str, task: str) -> pd.DataFrame:
    return frame[(frame["ladder"] == ladder) & (frame["task"] == task)]


def named_order(table: Table, task: str) -> list[int]:
    """Places of a task's options in the order of their names; those of ours stand as they are."""
    options, own = table.options[task], TASKS.get(task)
    ours = own and own.options == options
    return sorted(range(len(options)), key=None if ours else options.__getitem__)


def compared(
    table: Table, ladder: str, task: str, stages: Sequence[str]
) -> tuple[Count | None, dict[str, Evidence]]:
    """How many prompts all of these stages answer, None where the table lacks that or a stage; and
    their `evidence`, none if those are too few.
    """
    mine = _of(table.asked, ladder, task)
    masses = [mine.loc[mine["stage"] == stage, "mass"].to_numpy() for stage in stages]
    counted = count(*masses) if all(len(mass) for mass in masses) else None
    few = counted and not counted.measurable
    return counted, {} if few else evidence(table, ladder, task, stages)


def phases_of(table: Table, ladder: str, task: str, who: Roles) -> chain.Parts:
    """What each phase compares, where its stages are there; the count, if too few are answered."""
    parts: dict[str, Sequence[Evidence] | Count] = {}
    for phase, stages in zip(chain.CLAIMS, (who[:1], who[:2], who)):
        counted, found = compared(table, ladder, task, stages)
        if counted and not counted.measurable:
            parts[phase] = counted
        elif all(stage in found for stage in stages):
            parts[phase] = [found[stage] for stage in stages]
    return parts


def survey(table: Table, ladder: str, **how: Any) -> dict[str, list[Verdict]]:
    """Task -> verdicts of one ladder; how: as in `chain.survey`.

    Raises: CrystalError if nothing was drawn often enough, too.
    """
    who = roles(table.ladders[ladder])
    every = {task: phases_of(table, ladder, task, who) for task in sorted(table.tasks[ladder])}
    every = {task: parts for task, parts in every.items() if parts or evidence(table, ladder, task)}
    enough = sum(map(bool, who[:2])) if who.base else 0  # phases that there could be
    judged = any(len(parts) >= enough for parts in every.values())
    counted = any(isinstance(part, Count) for parts in every.values() for part in parts.values())
    if not judged and not counted:
        drawn = f"{ev.FEWEST} or more draws on the options at every stage"
        hint = "draw more answers, or judge another ladder: --ladder NAME"
        what = f"no prompt of the ladder {ladder!r:.60} has {drawn}"
        raise CrystalError(what, where=table.path, hint=hint)
    options = {task: table.options[task] for task in every if task in table.options}
    found = chain.survey(every, options, **how).verdicts
    shown = [*table.tasks[ladder], POOLED]  # as they stand in the table
    return {task: found[task] for task in shown if task in found}


# -- numbers


def numbers(table: Table) -> pd.DataFrame:
    """One row per ladder, task and stage, of distributions meaned over the prompts that it answers.

    No row where they are too few. mass: on options; where the table says it, answered of asked
    prompts; entropy, liquidity: in bits; from base, from previous: total variation on the prompts
    that both stages answer; top: the likeliest option, its probability, its rank in the base.
    """
    rows, nan = [], np.nan
    for (ladder, task), mine in table.frame.groupby(["ladder", "task"], sort=False):
        every, order, first, before = table.ladders[ladder], named_order(table, task), "", ""
        for stage in every:
            counted, found = compared(table, ladder, task, [stage])
            if "base" in every and (counted or found):
                first = first or stage
            if stage not in found:
                continue
            base, own = _means(table, ladder, task, first, stage)
            previous, now = _means(table, ladder, task, before or stage, stage)
            p, before = found[stage].distribution.mean(0), stage
            (prompts, options), top = found[stage].distribution.shape, int(p.argmax())
            bits = ev.liquidity(found[stage], np.ones(prompts)) if prompts > 1 else nan
            entropy = float(ph.entropy_bits(p))
            row = {
                "ladder": ladder,
                "task": task,
                "stage": stage,
                "prompts": prompts,
                "options": options,
                "mass": float(mine.loc[mine["stage"] == stage, "mass"].mean()),
                "entropy": entropy,
                "normalised": entropy / float(np.log2(options)) if options > 1 else nan,
                "liquidity": float(bits),
                "from base": float(ph.tv(own, base)),
                "from previous": float(ph.tv(now, previous)),
                "top": table.options[task][order[top]],
                "p(top)": float(p[top]),
                "rank in base": 1 + sum(base > base[top]) if np.isfinite(base[top]) else nan,
            }
            more = {"answered": counted.answered, "asked": counted.asked} if counted else {}
            rows.append(row | more)
    return pd.DataFrame(rows, columns=None if rows else ["ladder"])


def _means(table: Table, ladder: str, task: str, *stages: str) -> list[np.ndarray]:
    """The mean distributions of stages on the prompts that all of them answer; nan: too few."""
    _, found = compared(table, ladder, task, stages)
    none = np.full(len(table.options[task]), np.nan)
    return [found[stage].distribution.mean(0) if stage in found else none for stage in stages]


def over_tasks(numbers: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean over tasks of one column of `numbers`, with Student's interval, by ladder and stage."""
    rows = []
    for (ladder, stage), mine in numbers.groupby(["ladder", "stage"], sort=False):
        values = mine[column].dropna().to_numpy()
        mean = float(values.mean()) if len(values) else np.nan
        found = student(values) if len(values) > 1 else Estimate(mean, np.nan, np.nan)
        rows.append((ladder, stage, found.value, found.low, found.high, len(values)))
    return pd.DataFrame(rows, columns=["ladder", "stage", "value", "low", "high", "tasks"])


# -- as text and data


def stages_text(table: Table, ladders: Iterable[str], arrow: str = "→") -> list[str]:
    """Each ladder's stages, with what stands in another's place."""
    lines = []
    for ladder in ladders:
        stages = table.ladders[ladder]
        instead = roles(stages).told
        told = f"{ladder}: {f' {arrow} '.join(stages)}"
        lines.append(f"{told} ({instead})" if instead else told)
    return lines


def as_myst(every: pd.DataFrame) -> str:
    head = {
        "ladder": "ladder", "task": "task", "stage": "stage", "prompts": "prompts",
        "asked": "of these asked", "mass": "mass on options", "entropy": "entropy, bits",
        "from base": "TV from base", "from previous": "TV from the stage before",
        "top": "top option", "p(top)": "its probability", "rank in base": "its rank in the base",
    }  # fmt: skip
    shown = every[[name for name in head if name in every]]
    cells = shown.map(lambda x: x if isinstance(x, str) else show.fmt(x))
    return show.table([head[name] for name in shown], cells.to_numpy())


def as_json(table: Table, found: Found) -> dict:
    """All of it for other programs: notes; per ladder its stages, verdicts and numbers. What does
    not exist is None.
    """
    every, ladders = numbers(table), {}
    for ladder, stages in table.ladders.items():
        judged = [_verdict(task, v) for task, those in found[ladder].items() for v in those]
        mine = every[every["ladder"] == ladder].drop(columns="ladder").to_dict("records")
        ladders[ladder] = {
            "stages": list(stages),
            "roles": roles(stages).told,
            "verdicts": [*map(_plain, judged)],
            "numbers": [*map(_plain, mine)],
        }
    return {"notes": list(table.notes), "ladders": ladders}


def _verdict(task: str, v: Verdict) -> dict:
    row = {"task": task, "claim": v.claim, "p": v.p, "p_against": v.p_against}
    row |= {"side": v.threshold.side, "null_name": v.null and v.null.name}
    row |= {"null_p": v.null and v.null.p} | v.fields()
    return row if v.verdict in chain.TESTED else row | {"reason": v.reason}


def _plain(row: Mapping[str, object]) -> dict:
    plain = {name: x.item() if isinstance(x, np.generic) else x for name, x in row.items()}
    return {name: finite(x) if isinstance(x, float) else x for name, x in plain.items()}


def as_text(table: Table, found: Found) -> str:
    """For a terminal: notes; per ladder one line a claim over all tasks, then verdicts by task."""
    lines = [f"note: {note}" for note in table.notes]
    for ladder, tasks in found.items():
        lines += ["", *stages_text(table, [ladder], "->")]
        lines += [f"  {v.verdict:<12} {v.claim}: {v.sentence()}" for v in tasks.get(POOLED, [])]
        alone = {task: those for task, those in tasks.items() if task != POOLED}
        cells = [{v.claim: v.verdict for v in those} for those in alone.values()]
        frame = pd.DataFrame(cells, index=[*alone]).fillna("-")
        few = ([v.reason for v in those if v.verdict == NOT_MEASURABLE] for those in alone.values())
        frame[""] = [f"({why[0]})" if why else "" for why in few]
        lines.append(frame.to_string(justify="left"))
    return "\n".join(lines)


# -- figures


def load_pooled(found: Found) -> pd.DataFrame:
    """The verdicts over all tasks, a row per ladder and claim, for `verdicts.plot_forest`."""
    pooled = {ladder: tasks[POOLED] for ladder, tasks in found.items() if POOLED in tasks}
    return verdicts.load_verdicts({POOLED: pooled}) if pooled else pd.DataFrame()


def plot_stages(frame: pd.DataFrame, stages: Sequence[str], measured: str) -> Figure:
    """One line a ladder over the stages, mean with its interval. frame: of `over_tasks`."""
    fig, axes = panels(1, 1, 2.4)
    ax, ladders = axes[0, 0], list(frame["ladder"].unique())
    for number, ladder in enumerate(ladders):
        mine = frame[frame["ladder"] == ladder]
        at = mine["stage"].map(list(stages).index) + 0.06 * (number - (len(ladders) - 1) / 2)
        colour = LINES[number % len(LINES)]
        ax.plot(at, mine["value"], "o-", color=colour, label=label(ladder))
        ax.vlines(at, mine["low"], mine["high"], color=colour, lw=1)
    ax.set_xticks(range(len(stages)), stages)
    ax.set(ylabel=measured, ylim=(0, None))
    return legend(fig)


def load_answers(table: Table, checkpoints: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """A row per prompt of every checkpoint (ladder, stage): names, and the probability of each
    option. Prompts with the same likeliest one side by side.
    """
    (options,) = table.options.values()
    there, frames = dict(iter(table.frame.groupby(["ladder", "stage"], sort=False))), []
    for ladder, stage in checkpoints:
        mine = there[ladder, stage]
        p = np.stack(mine["distribution"].tolist())
        order = np.lexsort((-p.max(axis=1), p.argmax(axis=1)))
        about = {"ladder": ladder, "stage": stage, "prompt": mine["prompt"].to_numpy()[order]}
        frames.append(pd.DataFrame(about).join(pd.DataFrame(p[order], columns=options)))
    return pd.concat(frames, ignore_index=True)


def plot_answers(frame: pd.DataFrame) -> Figure:
    """A panel per checkpoint: prompts down, options across, brighter is likelier."""
    options, places = list(frame.columns[3:]), frame.groupby(["ladder", "stage"], sort=False)
    fig, axes = panels(-(-len(places) // ACROSS), min(ACROSS, len(places)), 2.4)
    step = -(-len(options) // NAMED)
    for ax in axes.flat[len(places) :]:
        ax.set_visible(False)
    how = {"aspect": "auto", "vmin": 0, "vmax": 1, "cmap": "cividis", "interpolation": "none"}
    for ax, ((ladder, stage), mine) in zip(axes.flat, places, strict=False):
        image = ax.imshow(mine[options], **how)
        ax.set(title=label(f"{title_of(ladder)}, {stage}", wide=24), yticks=[])
        ax.set_xticks(range(len(options))[::step], [label(x, most=12) for x in options[::step]])
        ax.tick_params(axis="x", rotation=90)
        ax.grid(False)
    axes[0, 0].set_ylabel("prompts")
    fig.colorbar(image, ax=axes, label="probability", aspect=25)
    return fig


# -- the paper beside other series


def load_sides(ours: Found, theirs: Found) -> pd.DataFrame:
    """One row per claim of SAID and ladder. kind: "tasks", of ours, on how many each verdict
    stands; "all", verdict and number over all tasks.
    """
    counts = verdicts.load_counts(ours).assign(kind="tasks")
    each = [verdict.replace("-", "_") for verdict in chain.VERDICTS]
    over = load_pooled(ours | theirs).drop(columns=["ladder", "number"], errors="ignore")
    over = over.rename(columns={"task": "ladder", "value": "number"}).assign(kind="all")
    columns = ["claim", "kind", "ladder", "verdict", "number", "low", "high"]
    tasks = counts[["claim", "kind", "ladder", "tasks", *each]]
    frame = pd.concat([tasks, over.reindex(columns=columns)])
    order = {"key": lambda claims: claims.map(list(SAID).index), "kind": "stable"}
    return frame[frame["claim"].isin(SAID)].sort_values("claim", **order).reset_index(drop=True)


def sides_table(frame: pd.DataFrame) -> str:
    """MyST: the claim as the paper is known to make it, our number for it, each ladder's."""
    ladders, lines = list(dict.fromkeys(frame["ladder"])), []
    for claim, mine in frame.groupby("claim", sort=False):
        cells: dict[str, str] = {}
        for row in mine.sort_values("kind").itertuples():
            text = f"holds on {row.holds:.0f} of {row.tasks:.0f} tasks alone"
            if row.kind == "all":
                found = show.between(row.number, row.low, row.high)
                text = row.verdict + ("" if pd.isna(row.number) else f": {found}")
            cells[row.ladder] = "; ".join(filter(None, (cells.get(row.ladder), text)))
        threshold = THRESHOLDS[claim]
        measured = f"{threshold.number}, {threshold.side} {show.fmt(threshold.value)}"
        lines.append([SAID[claim], measured, *(cells.get(one, "not known") for one in ladders)])
    head = ["what is claimed", "measured as", *map(title_of, ladders)]
    return show.table(head, lines)
