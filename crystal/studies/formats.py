"""Format against weights: every rung as raw text and in chat form, and which of the two froze the answers.

A *reading* is a ladder's answers: (rung, form, task) -> (prompts, options), conditional on an option. Judged are, as registered,
the probe's twenty prompts; the same numbers on all hundred stand beside. Intervals within a ladder are over narrators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.ladders import load_ladder
from ..ask.prompts import CHAT, COMPLETION, FORMS, PROBE, Prompt
from ..ask.tasks import PHASE_TASKS
from ..keep import store
from ..measure import answered, phases
from ..measure import inference as inf
from ..measure.answered import needed
from ..measure.inference import Estimate
from ..measure.phases import Array
from ..present.answering import unconditional
from ..present.figures import panels, title_of
from ..texts import label
from . import parents
from .parents import ALL, APART, DEMONSTRATED, HELD_OUT, MEAN, limits, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATER = ("sft", "dpo", "rlvr")
COLOURS = {CHAT: "#0072B2", COMPLETION: "#E69F00"}
NAMES = {CHAT: "chat form", COMPLETION: "raw text"}
PARTS = {"form": ("base in chat form", "#E69F00", "s"), "whole": ("SFT in chat form", "#0072B2", "o"),
         "text": ("SFT as raw text", "#009E73", "^")}
Answers = Mapping[tuple[str, str, str], Array]


@dataclass(frozen=True)
class Reading:
    """What one ladder answered, and the mass it left outside the options."""

    ladder: str
    answers: Answers  # (rung, form, task) -> (prompts, options)
    left: pd.DataFrame  # rung, form: mean off_support and unresolved
    narrators: Array  # of every prompt
    answered: Mapping[str, Array]  # task -> (prompts,) 1 for those that every rung answers, else 0
    demonstrated: Sequence[str]  # tasks

    def tasks(self, group: str) -> list[str]:
        """Those of a group that enough prompts answer."""
        shown = self.demonstrated
        return [task for task in PHASE_TASKS
                if (group == ALL or (task in shown) == (group == DEMONSTRATED))
                and self.answered[task].sum() >= needed(len(self.narrators))]

    def of(self, rung: str, form: str, group: str) -> list[Array]:
        """The answers to every task of a group."""
        return [self.answers[rung, form, task] for task in self.tasks(group)]

    def weights(self, task: str, w: Array | None = None) -> Array:
        """Weights without the prompts that some rung does not answer."""
        return self.answered[task] if w is None else w * self.answered[task]

    def read(self, rung: str, form: str) -> bool:
        return (rung, form, PHASE_TASKS[0]) in self.answers


def load_readings(ladders: Sequence[str], prompts: Sequence[Prompt] = PROBE) -> list[Reading]:
    """Every ladder's rungs in the forms they were read in. prompts: rungs that were asked fewer are left out."""
    return [_reading(name, prompts) for name in ladders]


def _reading(name: str, prompts: Sequence[Prompt]) -> Reading:
    frame = store.load_readouts(name, tasks=PHASE_TASKS, forms=FORMS)
    frame = frame[(frame["temperature"] == 1.0) & frame["prompt"].isin([prompt.id for prompt in prompts])]
    found, both = {}, {task: np.ones(len(prompts)) for task in PHASE_TASKS}
    for (rung, form), part in frame.groupby(["rung", "form"], sort=False):
        for task in PHASE_TASKS if len(part) == len(prompts) * len(PHASE_TASKS) else ():
            table = unconditional(part, rung, task, form, prompts=prompts)
            mass = table.sum(1, keepdims=True)
            both[task] *= answered.answers(mass[:, 0])
            # a row that is not answered weighs nothing, whatever it holds
            found[rung, form, task] = np.where(mass > 0, table, 1) / np.where(
                mass > 0, mass, table.shape[1])
    left = frame.groupby(["rung", "form"], sort=False)[["off_support", "unresolved"]].mean().reset_index()
    narrators = np.array([prompt.narrator for prompt in prompts])
    return Reading(name, found, left, narrators, both, load_ladder(name).demonstrated)


# --- numbers of one ladder -------------------------------------------------------------------------------------------


def liquidity(reading: Reading, rung: str, form: str, group: str) -> Callable[[Array], Array]:
    """Weights over prompts -> liquidity in bits, mean over the tasks of a group."""
    laws = dict(zip(reading.tasks(group), reading.of(rung, form, group), strict=True))
    return lambda w: np.mean([phases.liquidity_bits(law, reading.weights(task, w))
                              for task, law in laws.items()], axis=0)


def kept(reading: Reading, rung: str, group: str, form: str = COMPLETION) -> Callable[[Array], Array]:
    """Weights -> liquidity of a rung over that of the base, both in one form, each the mean over a group's tasks."""
    later, base = liquidity(reading, rung, form, group), liquidity(reading, "base", form, group)
    return lambda w: phases.ratio(later(w), base(w))


def _kept(reading: Reading, group: str, *, rung: str, form: str) -> Callable[[Array], Array]:
    return kept(reading, rung, group, form)


def moves(reading: Reading, task: str, weights: Array | None = None) -> dict[str, Array]:
    """TV of mean laws from the base as raw text. form: the base in chat form; text: SFT as raw text; whole: SFT in chat form.

    along, length: the form's move projected on the whole one, and that one's squared length (sums of squares).
    """
    weights = reading.weights(task, weights)
    laws = {(rung, form): phases.mean_law(reading.answers[rung, form, task], weights)
            for rung in ("base", "sft") for form in FORMS}
    start, form, whole = laws["base", COMPLETION], laws["base", CHAT], laws["sft", CHAT]
    return {"form": phases.tv(start, form), "text": phases.tv(start, laws["sft", COMPLETION]), "whole": phases.tv(start, whole),
            "along": ((form - start) * (whole - start)).sum(-1), "length": ((whole - start) ** 2).sum(-1)}


def form_share(reading: Reading, group: str, over: tuple[str, str] = ("form", "whole")) -> Callable[[Array], Array]:
    """Weights -> the share of the base-to-SFT move that the base makes by being put in chat form; sums over a group's tasks.

    over ("along", "length"): the part of it that goes SFT's way.
    """
    def share(w: Array) -> Array:
        found = [moves(reading, task, w) for task in reading.tasks(group)]
        part, whole = (np.sum([move[name] for move in found], axis=0) for name in over)
        return phases.ratio(part, whole)

    return share


NUMBERS: dict[str, Callable[[Reading, str], Callable[[Array], Array]]] = {
    **{f"liquidity of {rung} over the base, {NAMES[form]}": partial(_kept, rung=rung, form=form)
       for form in FORMS for rung in LATER},
    "liquidity of the base, chat form over raw text": lambda reading, group: lambda w: phases.ratio(
        liquidity(reading, "base", CHAT, group)(w), liquidity(reading, "base", COMPLETION, group)(w)),
    "share of the base-to-SFT move made by form": form_share,
    "the same, projected on SFT's way": lambda reading, group: form_share(reading, group, ("along", "length")),
}
CLAIMED = "liquidity of sft over the base, raw text"
SHARE, TOWARD = list(NUMBERS)[-2:]


def load_numbers(readings: Sequence[Reading]) -> dict[tuple[str, str, str], Estimate]:
    """(ladder, group of tasks, number of NUMBERS) -> its estimate, with an interval over narrators."""
    found = {}
    for reading in readings:
        weights = inf.leave_one_out(reading.narrators)
        for group in (*APART, ALL):
            for name, statistic in NUMBERS.items():
                found[reading.ladder, group, name] = inf.estimate(
                    statistic(reading, group), weights, low=-np.inf if name == TOWARD else 0, scale="log")
    return found


def over_ladders(numbers: Mapping[tuple[str, str, str], Estimate], group: str, name: str) -> pd.Series:
    """One number of every ladder, indexed by ladder."""
    values = {ladder: found.value for (ladder, g, n), found in numbers.items() if (g, n) == (group, name)}
    return pd.Series(values, name=name if name == TOWARD else "ratio")


def load_left(readings: Sequence[Reading]) -> pd.DataFrame:
    """Per stage's end and form: off-support and unresolved mass, mean over the ladders and the most of any."""
    left = pd.concat([reading.left for reading in readings])
    left = left[left["rung"].isin(["base", *LATER])].groupby(["rung", "form"], sort=False)
    return left.agg(off=("off_support", "mean"), off_most=("off_support", "max"),
                    open=("unresolved", "mean"), open_most=("unresolved", "max")).reset_index()


# --- figures ---------------------------------------------------------------------------------------------------------


def load_rungs(readings: Sequence[Reading]) -> pd.DataFrame:
    """One row per ladder, rung, form and group (apart): liquidity in bits; `place` is 0 for the base, 1 SFT, 2 DPO, 3 RLVR.

    Rungs on the way stand between, by the logarithm of their step. common: every ladder has that rung in that form.
    """
    rows = []
    for reading in readings:
        for rung in load_ladder(reading.ladder).rungs:
            place = _place(reading.ladder, rung)
            for form, group in ((form, group) for form in FORMS for group in APART if reading.read(rung.name, form)):
                bits = liquidity(reading, rung.name, form, group)(np.ones(len(reading.narrators)))
                rows.append({"ladder": reading.ladder, "rung": rung.name, "place": place, "form": form, "group": group,
                             "liquidity": float(bits)})
    frame = pd.DataFrame(rows)
    return frame.assign(common=frame.groupby(["rung", "form"])["ladder"].transform("nunique") == len(readings))


def _place(ladder: str, rung) -> float:
    stages = ["base", *LATER]
    whole = np.log2(1 + load_ladder(ladder).rung(rung.stage).step)
    return 0.0 if rung.stage == "base" else stages.index(rung.stage) - 1 + float(np.log2(1 + rung.step) / whole)


def plot_rungs(frame: pd.DataFrame) -> Figure:
    """Liquidity along the ladder, a thin line per ladder and form, a thick one for the mean of the rungs all have."""
    fig, axes = panels(1, 2, 7.6, 3.1, sharey=True)
    for ax, group in zip(axes[0], APART, strict=True):
        mine = frame[frame["group"] == group]
        for (_, form), line in mine.groupby(["ladder", "form"], sort=False):
            ax.plot(line["place"], line["liquidity"], "-" if form == CHAT else "--", color=COLOURS[form], lw=0.8, alpha=0.6)
        for form, marker in zip(FORMS, "so", strict=True):
            read = mine[mine["form"] == form]
            shared, joined = read[read["common"]], "-" if form == CHAT else "--"
            style = marker + (joined if read["common"].all() else "")  # a line over rungs that some lack would be no mean
            mean = shared.groupby("rung")[["place", "liquidity"]].mean().sort_values("place")
            ax.plot(mean["place"], mean["liquidity"], style, color=COLOURS[form], lw=2.2, label=NAMES[form])
        ax.set_xticks(range(4), ["base", *LATER])
        ax.set(title=f"{titled(group)} tasks", xlabel="rung", ylim=(0, None))
    axes[0, 0].set_ylabel("liquidity, bits")
    axes[0, -1].legend()
    return fig


def load_moves(readings: Sequence[Reading]) -> pd.DataFrame:
    """One row per task and part of PARTS: TV of mean laws from the base as raw text; rows of `parents.intervals`."""
    rows = [{"parent": reading.ladder, "task": task, "group": DEMONSTRATED if task in reading.tasks(DEMONSTRATED) else HELD_OUT,
             "part": part, "tv": float(value)}
            for reading in readings for task in reading.tasks(ALL)
            for part, value in moves(reading, task).items() if part in PARTS]
    return parents.intervals(pd.DataFrame(rows), ["group", "task", "part"], "tv")


def plot_moves(frame: pd.DataFrame) -> Figure:
    """Tasks down, demonstrated ones first: how far each of three changes takes the mean answer from the base's as raw text."""
    order = frame.drop_duplicates(["group", "task"]).sort_values("group", kind="stable")
    names = [f"{row.task}*" if row.group == DEMONSTRATED else row.task for row in order.itertuples()]
    fig, axes = panels(1, 1, 7.2, 0.27 * len(names) + 1.3)
    ax = axes[0, 0]
    for shift, (part, (name, colour, marker)) in zip((-0.2, 0.2, 0), PARTS.items(), strict=True):
        mine = frame[(frame["part"] == part) & (frame["parent"] == MEAN)].set_index("task").loc[order["task"]]
        y = np.arange(len(names)) + shift
        ax.plot(mine["value"], y, marker, color=colour, label=name, ms=4.5)
        ax.hlines(y, mine["low"].clip(lower=0), mine["high"], color=colour, lw=1.1)
    ax.axhline((order["group"] == DEMONSTRATED).sum() - 0.5, color="#767c85", lw=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, limits(frame["value"])[1]),
           xlabel="total variation of the mean answer from the base as raw text")
    fig.legend(loc="outside lower center", ncols=3)
    return fig


def load_forest(numbers: Mapping[tuple[str, str, str], Estimate]) -> pd.DataFrame:
    """One row per ladder, rung after the base and group: liquidity over the base's, both as raw text; value, low, high."""
    return pd.DataFrame([
        {"ladder": ladder, "rung": rung, "group": group, "value": found.value, "low": found.low, "high": found.high}
        for rung in LATER for (ladder, group, name), found in numbers.items()
        if name == f"liquidity of {rung} over the base, raw text"])


def plot_forest(frame: pd.DataFrame, mark: float) -> Figure:
    """Ladders down, a panel per rung; the claim's side of the mark is shaded."""
    ladders = list(frame["ladder"].unique())
    shown = {DEMONSTRATED: ("#0072B2", "o", -0.2), ALL: ("#000000", "s", 0), HELD_OUT: ("#D55E00", "D", 0.2)}
    fig, axes = panels(1, len(LATER), 9.0, 0.4 * len(ladders) + 1.6, sharey=True, sharex=True)
    for ax, rung in zip(axes[0], LATER, strict=True):
        for group, (colour, marker, shift) in shown.items():
            mine = frame[(frame["rung"] == rung) & (frame["group"] == group)].set_index("ladder").loc[ladders]
            y = np.arange(len(ladders)) + shift
            ax.plot(mine["value"], y, marker, color=colour, label=group, ms=4.5)
            ax.hlines(y, mine["low"], mine["high"], color=colour, lw=1.2)
        ax.axvline(mark, color="#767c85", lw=1)
        ax.set(title=rung, ylim=(len(ladders) - 0.5, -0.5), xlabel="liquidity over the base's, raw text")
    right = max(1.05, float(frame["high"].max()) * 1.05)
    for ax in axes[0]:
        ax.axvspan(mark, right, color="#009E73", alpha=0.1, lw=0)
        ax.set_xlim(0, right)
    axes[0, 0].set_yticks(range(len(ladders)), [label(title_of(name)) for name in ladders])
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig
