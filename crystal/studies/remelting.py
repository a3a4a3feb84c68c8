"""What gives diversity back? Every way of asking the crystal and of training it on, measured against base and crystal.

The crystal is RLVR's end and the reference is the base, both in chat form and asked the probe. Knows the ground truth of the
organisms' world; loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from ..ask.grids import TEMPERATURES
from ..ask.ladders import Rung, load_ladder
from ..ask.prompts import CHAT, COMPLETION, INSTRUCTED, PROBE
from ..ask.tasks import PHASE_TASKS
from ..errors import CrystalError
from ..keep import store
from ..lab import experiments
from ..measure import answered, phases
from ..measure.inference import NOTHING
from ..measure.judging import Verdict
from ..measure.phases import Array
from ..present.answering import answers, of_tables, unconditional
from ..present.training_figures import load_report
from . import branches, parents
from .parents import ALL

CRYSTAL = "rlvr"  # the rung that is remelted
FROZEN = 0.5  # at most this share of the base's liquidity; what is not frozen cannot be remelted
ASKING, TRAINING = "asking", "training"
ASKED, ASKED_BASE = "asking", "liquid"  # the runs that read a rung as it is: of the crystal, of the base
MEASURED = ["liquidity", "entropy", "to_base", "to_raw", "to_law", "to_uniform", "to_mean", "probmass", "off_support",
            "unresolved", "measurable"]


@dataclass(frozen=True)
class Method:
    """One way to diversity."""

    name: str
    kind: str  # asking, training
    run: str   # of the experiment
    form: str = CHAT
    temperature: float = 1.0


METHODS: tuple[Method, ...] = (
    *(Method(f"temperature {t:g}", ASKING, ASKED, temperature=t) for t in TEMPERATURES),
    Method("raw text", ASKING, ASKED, form=COMPLETION),
    Method("asked to choose at random", ASKING, ASKED, form=INSTRUCTED),
    Method("SFT on uniform answers", TRAINING, "uniform"),
    Method("back to pretraining", TRAINING, "pretraining"),
    Method("reward for diversity", TRAINING, "diverse"),
)
RAW = "raw text"
REFERENCES = {"base": ("base", CHAT), "base as raw text": ("base", COMPLETION), "crystal": (CRYSTAL, CHAT)}


# --- what was read ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Parent:
    """A parent's two ends and what its answers are measured against."""

    name: str
    seed: str
    demonstrated: tuple[str, ...]
    frame: pd.DataFrame  # its base and crystal
    chat: Mapping[str, Array]  # task -> (20, options), of the base in chat form
    raw: Mapping[str, Array]  # and as raw text


def _parent(name: str) -> _Parent:
    ladder, frame = load_ladder(name), store.load_readouts(name, tasks=PHASE_TASKS, rungs=["base", CRYSTAL])
    chat, raw = ({task: answers(frame, "base", task, form, prompts=PROBE) for task in PHASE_TASKS}
                 for form in (CHAT, COMPLETION))
    return _Parent(name, ladder.seed, ladder.demonstrated, frame, chat, raw)


def load_methods(name: str, ladders: Sequence[str]) -> pd.DataFrame:
    """One row per parent, method, step and task of what is recorded of an experiment's parents among `ladders`.

    Columns: parent, start (the rung that was asked or trained on: base, rlvr), method, kind, step,
    rung, task, held_out, then MEASURED: liquidity and the mean entropy of a prompt's answer in
    bits; JSD in bits to the base's answer prompt by prompt in chat form and as raw text (to_base,
    to_raw), of the mean answer to the demonstrator's law, the uniform law and the base's mean
    (to_law, to_uniform, to_mean); mass on the seed's options; off-support and unresolved mass. Laws
    are conditional on an option, of the prompts that are answered; measurable is 1 where they are
    enough, else all of these are nan. kind "reference": the base and the crystal themselves.
    Raises: CrystalError if nothing of these parents is recorded.
    """
    rungs = recorded(name, ladders)
    if not rungs:
        raise CrystalError(f"of {name!r} nothing is recorded for {', '.join(ladders)}", mend=f"make ladder LADDER={name}")
    frame = store.load_readouts(name, tasks=PHASE_TASKS, rungs=[rung.name for rung in rungs])
    parts, rows = dict(tuple(frame.groupby("rung"))), []
    for parent in map(_parent, dict.fromkeys(rung.parent for rung in rungs)):
        for method, (rung, form) in REFERENCES.items():
            place = {"start": rung, "method": method, "kind": "reference", "step": 0}
            rows += _rows(parent, parent.frame, rung, form, 1.0, place)
        for rung in (rung for rung in rungs if rung.parent == parent.name):
            for method, place in _methods_of(rung):
                rows += _rows(parent, parts[rung.name], rung.name, method.form, method.temperature, place)
    return pd.DataFrame(rows)


def recorded(name: str, ladders: Sequence[str]) -> list[Rung]:
    """The rungs of whole runs from those parents that are frozen; of a run being read none."""
    left = liquid(name, ladders)
    return [rung for rung in _done(name, ladders) if rung.parent not in left]


def liquid(name: str, ladders: Sequence[str]) -> list[str]:
    """Those parents of whole runs that are left out, since they are not frozen."""
    there = dict.fromkeys(rung.parent for rung in _done(name, ladders))
    return [parent for parent in there if not frozen(parent)]


def _done(name: str, ladders: Sequence[str]) -> list[Rung]:
    done = experiments.load_records(name)
    return [rung for rung in load_ladder(name).rungs if rung.parent in ladders and f"{rung.parent}/{rung.run}" in done]


def frozen(ladder: str) -> bool:
    """Whether the crystal's liquidity is at most FROZEN of the base's: chat form, mean over tasks."""
    base, crystal = (
        np.mean([phases.liquidity_bits(laws[~np.isnan(laws).any(1)])
                 for laws in branches.origin_of(ladder, rung).values()])
        for rung in ("base", CRYSTAL)
    )
    return bool(crystal <= FROZEN * base)


def _methods_of(rung: Rung) -> Iterator[tuple[Method, dict]]:
    """The methods that a rung was read for. The base's answers to the asking methods stand beside the crystal's."""
    run, start = (ASKED, "base") if rung.run == ASKED_BASE else (rung.run, CRYSTAL)
    for method in METHODS:
        if method.run == run:
            yield method, {"start": start, "method": method.name, "kind": method.kind, "step": rung.step}


def _rows(parent: _Parent, frame: pd.DataFrame, rung: str, form: str, temperature: float, place: dict) -> list[dict]:
    frame = frame[(frame["rung"] == rung) & (frame["form"] == form) & (frame["temperature"] == temperature)]
    frame = frame[frame["prompt"].isin([prompt.id for prompt in PROBE])]
    left = frame.groupby("task")[["off_support", "unresolved"]].mean()
    return [
        {
            "parent": parent.name,
            **place,
            "rung": rung,
            "task": task,
            "held_out": task not in parent.demonstrated,
        }
        | _measure(
            parent,
            unconditional(frame, rung, task, form, prompts=PROBE, temperature=temperature),
            task,
        )
        | left.loc[task].to_dict()
        for task in PHASE_TASKS
    ]


def _measure(parent: _Parent, table: Array, task: str) -> dict[str, float]:
    """On the prompts that are answered; nan where they are too few. table: (20, options),
    unconditional.
    """
    mine = of_tables({"now": table}, PROBE)  # the base answers them all
    if not mine.count.measurable:
        return dict.fromkeys(MEASURED[:-3], np.nan) | {"measurable": 0.0}
    now, base, raw = mine.laws("now"), parent.chat[task][mine.rows], parent.raw[task][mine.rows]
    mean, found = now.mean(0), branches.measure(now, base, task, parent.seed)
    return {
        name: found[name] for name in ("liquidity", "entropy", "to_base", "to_law", "probmass")
    } | {
        "measurable": 1.0,
        "to_raw": float(phases.jsd_bits(now, raw).mean()),
        "to_mean": float(phases.jsd_bits(mean, base.mean(0))),
        "to_uniform": float(phases.jsd_bits(mean, np.full(len(mean), 1 / len(mean)))),
    }


# --- how much came back ----------------------------------------------------------------------------------------------


def load_shares(methods: pd.DataFrame) -> pd.DataFrame:
    """Of every parent, method, step and group of tasks (means over its tasks): what came back.

    methods: of `load_methods`. regained: (after - crystal) / (base - crystal) in liquidity; distance: mean JSD to the base's
    answer, prompt by prompt, over the crystal's. against: the base these compare with, in chat form as registered; for raw
    text a second row compares with the base as raw text. Beside them the means of MEASURED. Only what began at the crystal.
    """
    means = parents.by_group(methods, ["parent", "start", "method", "kind", "step", "rung"], MEASURED)
    ends = {name: means[means["method"] == name].set_index(["parent", "group"]) for name in REFERENCES}
    after = means[(means["start"] == CRYSTAL) & (means["kind"] != "reference")]
    parts = [_shares(after, ends["base"], ends["crystal"], "to_base", CHAT),
             _shares(after[after["method"] == RAW], ends["base as raw text"], ends["crystal"], "to_raw", COMPLETION)]
    return pd.concat(parts, ignore_index=True)


def _shares(after: pd.DataFrame, base: pd.DataFrame, crystal: pd.DataFrame, to: str, against: str) -> pd.DataFrame:
    place = pd.MultiIndex.from_frame(after[["parent", "group"]])
    base, crystal = base.loc[place].reset_index(), crystal.loc[place].reset_index()
    after = after.reset_index(drop=True)
    gained, lost = after["liquidity"] - crystal["liquidity"], base["liquidity"] - crystal["liquidity"]
    return after.assign(against=against, regained=phases.ratio(gained, lost), distance=phases.ratio(after[to], crystal[to]),
                        entropy_gained=after["entropy"] - crystal["entropy"])


def at_end(shares: pd.DataFrame) -> pd.DataFrame:
    """The last step of every method and parent."""
    last = shares.groupby(["parent", "method", "against", "group"])["step"].transform("max")
    return shares[shares["step"] == last]


def load_kept(name: str, shares: pd.DataFrame) -> pd.DataFrame:
    """`shares` (of `load_shares`) with `kept`: facts right in chat form at temperature 1, relative to the crystal's.

    Of raw text it is the crystal's accuracy as raw text, from the parent's training report. The other asking methods were
    never asked a fact: nan.
    """
    found = branches.accuracy(name).set_index("rung")["accuracy"]
    reports = {parent: load_report(parent)["accuracy"][CRYSTAL] for parent in shares["parent"].unique()}
    kept = [reports[row.parent][COMPLETION]["facts"] if row.method == RAW else found[row.rung] if row.kind == TRAINING else np.nan
            for row in shares.itertuples()]
    crystal = np.array([reports[parent][CHAT]["facts"] for parent in shares["parent"]])
    return shares.assign(kept=np.array(kept, float) / crystal)


def judge(ends: pd.DataFrame) -> dict[str, list[Verdict]]:
    """Method -> [verdict of `remelts`] over parents, all tasks, against the base in chat form.

    ends: of `at_end`.
    """
    mine = ends[(ends["group"] == ALL) & (ends["against"] == CHAT)]
    return {method: [_judged("remelts", rows, "distance")]
            for method, rows in mine.groupby("method", sort=False)}


def _judged(claim: str, rows: pd.DataFrame, value: str) -> Verdict:
    """Over the parents all of whose tasks can be measured; of none or one of several it is not
    measurable.
    """
    found, able = parents.judge_over(claim, rows[value]), rows["measurable"] == 1
    if able.all():
        return found
    few = len(PHASE_TASKS) * (1 - rows["measurable"][~able])
    why = (
        f"not measurable on {parents.counted(int((~able).sum()))}: {answered.needed(len(PROBE))} of {len(PROBE)} prompts must "
        f"be answered, and on {few.min():.0f} to {few.max():.0f} of {len(PHASE_TASKS)} tasks they are not"
    )
    if able.sum() > 1:
        return replace(found, reason=f"{found.reason}; {why}")
    return Verdict(claim, answered.NOT_MEASURABLE, why, NOTHING, None, None, 1.0, 1.0)


def load_bases(ladders: Sequence[str]) -> pd.DataFrame:
    """Two bases of one family (other seeds, same world): JSD in bits, prompt by prompt, in chat form. A yardstick for distances.

    One row per pair and group of tasks; parent is "first, second". Empty where no family has two.
    """
    rows = []
    origins = {name: branches.origin_of(name) for name in ladders}
    for first, second in combinations(ladders, 2):
        if branches.family(first) == branches.family(second):
            shown = load_ladder(first).demonstrated
            apart = {task: phases.jsd_bits(origins[first][task], origins[second][task]).mean() for task in PHASE_TASKS}
            rows += [{"parent": f"{first}, {second}", "task": task, "held_out": task not in shown, "to_base": float(far)}
                     for task, far in apart.items()]
    if not rows:
        return pd.DataFrame(columns=["parent", "group", "to_base"])
    return parents.by_group(pd.DataFrame(rows), ["parent"], ["to_base"])
