"""What gives diversity back? Every way of asking the crystal and of training it on, in numbers.

The crystal is RLVR's end and the reference is the base, both in chat form and asked the probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import pandas as pd

from ..ask.cells import TEMPERATURES
from ..ask.ladders import Checkpoint, load_ladder
from ..ask.prompts import CHAT, COMPLETION, INSTRUCTED, PROBE
from ..ask.tasks import PHASE_TASKS
from ..errors import CrystalError
from ..keep import store
from ..measure import chain, evidence, quantities
from ..measure.claims import Verdict
from ..measure.quantities import Array
from ..present.show import number as fmt
from ..present.show import slug, table
from ..present.training_figures import load_report
from . import runs
from .runs import ALL, APART, by_group, estimate, formatted, where

CRYSTAL = "rlvr"  # the checkpoint that is remelted
FROZEN = 0.5  # at most this share of the base's liquidity; what is not frozen cannot be remelted
ASKING, TRAINING, REFERENCE = "asking", "training", "reference"
ASKED, ASKED_BASE = "asking", "liquid"  # the runs that read a checkpoint as it is: crystal, base
MEASURED = (
    "liquidity entropy to_base to_raw to_distribution to_uniform to_mean probmass invalid residual "
    "measurable"
).split()
AGAIN = "pretraining"  # the run that goes back
RAW = "raw text"


@dataclass(frozen=True)
class Method:
    """One way to diversity. run: of the experiment."""

    name: str
    kind: str  # ASKING, TRAINING, REFERENCE
    run: str
    form: str = CHAT
    temperature: float = 1.0


METHODS: tuple[Method, ...] = (
    *(Method(f"temperature {t:g}", ASKING, ASKED, temperature=t) for t in TEMPERATURES),
    Method(RAW, ASKING, ASKED, form=COMPLETION),
    Method("asked to choose at random", ASKING, ASKED, form=INSTRUCTED),
    Method("SFT on uniform answers", TRAINING, "uniform"),
    Method("back to pretraining", TRAINING, AGAIN),
    Method("reward for diversity", TRAINING, "diverse"),
)
REFERENCES = {  # name -> checkpoint, form
    "base": ("base", CHAT),
    "base as raw text": ("base", COMPLETION),
    "crystal": (CRYSTAL, CHAT),
}


# --- what was read


def load_methods(name: str, ladders: Sequence[str]) -> pd.DataFrame:
    """One row per parent in `ladders`, method, step and task that is recorded.

    start: the checkpoint that was asked or trained on. kind "reference": base and crystal
    themselves. MEASURED: liquidity and the mean entropy of a prompt's answer, bits; JSD in bits to
    the base's answer prompt by prompt, in chat form (to_base) and as raw text (to_raw), and of the
    mean answer to the demonstrator's distribution, the uniform distribution and the base's mean;
    mass on the seed's options; invalid-answer and residual mass. Distributions are conditional on
    an option; measurable is 1 where enough prompts are answered, else the others are nan.
    Raises: CrystalError if nothing of these parents is recorded.
    """
    checkpoints, rows = recorded(name, ladders), []
    if not checkpoints:
        what = f"of {name!r} nothing is recorded for {', '.join(ladders)}"
        raise CrystalError(what, hint=f"make ladder LADDER={name}")
    parts = _by_checkpoint(name, [c.name for c in checkpoints])
    for parent in dict.fromkeys(c.parent for c in checkpoints):
        own = _by_checkpoint(parent, ["base", CRYSTAL])
        raw = runs.probe(own["base"], COMPLETION)
        for method, (checkpoint, form) in REFERENCES.items():
            way = Method(method, REFERENCE, "", form)
            rows += _rows(parent, raw, own[checkpoint], way, checkpoint, 0)
        for c in (c for c in checkpoints if c.parent == parent):
            run, start = (ASKED, "base") if c.run == ASKED_BASE else (c.run, CRYSTAL)
            for way in (way for way in METHODS if way.run == run):
                rows += _rows(parent, raw, parts[c.name], way, start, c.step)
    return pd.DataFrame(rows)


def _by_checkpoint(ladder: str, checkpoints: Sequence[str]) -> dict[str, pd.DataFrame]:
    frame = store.load_readouts(ladder, tasks=PHASE_TASKS, checkpoints=checkpoints)
    return dict(tuple(frame.groupby("checkpoint")))


def recorded(name: str, ladders: Sequence[str]) -> list[Checkpoint]:
    """The checkpoints of whole runs from those parents that are frozen."""
    left = liquid(name, ladders)
    return [c for c in _done(name, ladders) if c.parent not in left]


def liquid(name: str, ladders: Sequence[str]) -> list[str]:
    """Those parents of whole runs that are left out, since they are not frozen."""
    there = dict.fromkeys(c.parent for c in _done(name, ladders))
    return [parent for parent in there if not frozen(parent)]


def _done(name: str, ladders: Sequence[str]) -> list[Checkpoint]:
    return [c for c in runs.recorded_checkpoints(name) if c.parent in ladders]


def frozen(ladder: str) -> bool:
    """Whether the crystal's liquidity, mean over tasks, is at most FROZEN of the base's."""

    def bits(found: Array) -> float:
        return quantities.liquidity_bits(found[~np.isnan(found).any(1)])

    base, crystal = (
        np.mean([*map(bits, runs.origin_of(ladder, checkpoint).values())])
        for checkpoint in ("base", CRYSTAL)
    )
    return bool(crystal <= FROZEN * base)


def _rows(
    parent: str, raw: dict, frame: pd.DataFrame, way: Method, start: str, step: int
) -> list[dict]:
    """frame: of one checkpoint. raw: task -> (20, options), the base as raw text."""
    now, chat = runs.probe(frame, way.form, way.temperature), runs.origin_of(parent)
    frame = where(frame, form=way.form, temperature=way.temperature)
    frame = frame[frame["prompt"].isin([prompt.id for prompt in PROBE])]
    left = frame.groupby("task")[["invalid", "residual"]].mean()
    checkpoint, ladder, rows = frame["checkpoint"].iloc[0], load_ladder(parent), []
    place = {"parent": parent, "start": start, "method": way.name, "kind": way.kind}
    place |= {"step": step, "checkpoint": checkpoint}
    for task in PHASE_TASKS:
        about = {"task": task, "held_out": task not in ladder.demonstrated, "measurable": 0.0}
        about |= runs.measure(now[task], chat[task], task, ladder.seed)
        if np.isfinite(about["liquidity"]):
            about |= _apart(now[task], chat[task], raw[task])
        rows.append(place | about | left.loc[task].to_dict())
    return rows


def _apart(now: Array, chat: Array, raw: Array) -> dict[str, float]:
    """How far the answered prompts are from the base's; all (20, options)."""
    there = ~np.isnan(now).any(1)
    now, chat, raw = now[there], chat[there], raw[there]
    mean = now.mean(0)
    return {
        "measurable": 1.0,
        "to_raw": float(quantities.jsd_bits(now, raw).mean()),
        "to_mean": float(quantities.jsd_bits(mean, chat.mean(0))),
        "to_uniform": float(quantities.jsd_bits(mean, np.full(len(mean), 1 / len(mean)))),
    }


# --- how much came back


def load_shares(methods: pd.DataFrame) -> pd.DataFrame:
    """What came back, by parent, method, step and group of tasks (means over its tasks).

    regained: (after - crystal) / (base - crystal) in liquidity. distance: mean JSD to the base's
    answer, prompt by prompt, over the crystal's. against: the base these compare with, in chat form
    as registered; for raw text a second row compares with the base as raw text. Beside them the
    means of MEASURED. Only what began at the crystal.
    """
    keys = ["parent", "start", "method", "kind", "step", "checkpoint"]
    means = by_group(methods, keys, MEASURED)
    after = means[(means["start"] == CRYSTAL) & (means["kind"] != REFERENCE)]
    chat = _shares(after, means, "base", "to_base", CHAT)
    raw = _shares(where(after, method=RAW), means, "base as raw text", "to_raw", COMPLETION)
    return pd.concat([chat, raw], ignore_index=True)


def _shares(
    after: pd.DataFrame, means: pd.DataFrame, base: str, to: str, against: str
) -> pd.DataFrame:
    place = pd.MultiIndex.from_frame(after[["parent", "group"]])
    base, crystal = (
        where(means, method=name).set_index(["parent", "group"]).loc[place].reset_index()
        for name in (base, "crystal")
    )
    after = after.reset_index(drop=True)
    gained = after["liquidity"] - crystal["liquidity"]
    return after.assign(
        against=against,
        regained=quantities.ratio(gained, base["liquidity"] - crystal["liquidity"]),
        distance=quantities.ratio(after[to], crystal[to]),
    )


def at_end(shares: pd.DataFrame) -> pd.DataFrame:
    """The last step of every method and parent."""
    last = shares.groupby(["parent", "method", "against", "group"])["step"].transform("max")
    return shares[shares["step"] == last]


def load_kept(name: str, shares: pd.DataFrame) -> pd.DataFrame:
    """`load_shares` with `kept`: facts right in chat form at temperature 1, over the crystal's.

    Of raw text the crystal's accuracy as raw text, from the parent's training report. The other
    asking methods were never asked a fact: nan.
    """
    right = runs.accuracy(name).set_index("checkpoint")["accuracy"]
    reports = {p: load_report(p)["accuracy"][CRYSTAL] for p in shares["parent"].unique()}
    raw, chat = (
        shares["parent"].map({p: report[form]["facts"] for p, report in reports.items()})
        for form in (COMPLETION, CHAT)
    )
    kept = shares["checkpoint"].map(right).where(shares["kind"] == TRAINING)
    return shares.assign(kept=kept.where(shares["method"] != RAW, raw) / chat)


def judge(ends: pd.DataFrame) -> dict[str, list[Verdict]]:
    """Method -> [verdict of `remelts`] over parents, all tasks, against the base in chat form.

    ends: of `at_end`. Only parents all of whose tasks can be measured count.
    """
    mine = where(ends, group=ALL, against=CHAT)
    return {method: [_judged(rows)] for method, rows in mine.groupby("method", sort=False)}


def _judged(rows: pd.DataFrame) -> Verdict:
    found, able = runs.judge_over("remelts", rows["distance"]), rows["measurable"] == 1
    if able.all():
        return found
    few, tasks = len(PHASE_TASKS) * (1 - rows["measurable"][~able]), len(PHASE_TASKS)
    why = (
        f"not measurable on {runs.counted(int((~able).sum()))}: {evidence.needed(len(PROBE))} of "
        f"{len(PROBE)} prompts must be answered, and on {few.min():.0f} to {few.max():.0f} of "
        f"{tasks} tasks they are not"
    )
    if able.sum() > 1:
        return replace(found, reason=f"{found.reason}; {why}")
    return Verdict("remelts", chain.NOT_MEASURABLE, why)


def load_bases(ladders: Sequence[str]) -> pd.DataFrame:
    """Bases of one family, pair by pair, in chat form: JSD in bits, prompt by prompt, by group: a
    yardstick for distances. parent: "first, second". Empty where no family has two.
    """
    rows = []
    for first, second in combinations(ladders, 2):
        if runs.family(first) == runs.family(second):
            shown = load_ladder(first).demonstrated
            one, other = runs.origin_of(first), runs.origin_of(second)
            for task in PHASE_TASKS:
                far = float(quantities.jsd_bits(one[task], other[task]).mean())
                rows.append((f"{first}, {second}", task, task not in shown, far))
    frame = pd.DataFrame(rows, columns=["parent", "task", "held_out", "to_base"])
    return by_group(frame, ["parent"], ["to_base"])


# --- as tables and words


JUDGED = {"regained": "liquidity regained", "distance": "distance to the base"}
OTHERS = {
    "entropy": "entropy, bits",
    "liquidity": "liquidity, bits",
    "probmass": "mass on the seed's options",
    "kept": "facts right",
}
RECORDED = {  # in full, where no heading says what they are of
    "regained": JUDGED["regained"],
    "distance": "distance to the base, prompt by prompt, over the crystal's",
    "entropy": "mean entropy of a prompt's answer, bits",
    "probmass": OTHERS["probmass"],
    "kept": "facts right, over the crystal's",
}


def names(ends: pd.DataFrame) -> list[str]:
    """The methods that any parent went, in the order of METHODS."""
    return [method.name for method in METHODS if method.name in set(ends["method"])]


def pick(
    ends: pd.DataFrame, method: str, value: str, group: str = ALL, against: str = CHAT
) -> pd.Series:
    """One quantity of one method, indexed by parent."""
    return where(ends, method=method, group=group, against=against).set_index("parent")[value]


def methods_text(ends: pd.DataFrame, value: str, methods: Sequence[str]) -> str:
    """One quantity of several methods in words, demonstrated and held-out tasks apart."""
    each = []
    for name in methods:
        both = (f"{group} {formatted(pick(ends, name, value, group))}" for group in APART)
        each.append(f"{name}: {', '.join(both)}")
    return "; ".join(each) or "not recorded yet"


def most(ends: pd.DataFrame, value: str, methods: Sequence[str], best: str = "max") -> str:
    """The method with the largest (best="min": smallest) mean over parents, in words."""
    sign = 1 if best == "max" else -1
    means = pd.Series({name: sign * pick(ends, name, value).mean() for name in methods})
    return methods_text(ends, value, [means.fillna(-np.inf).idxmax()])


def nearest(goals: pd.DataFrame) -> str:
    """Which methods' mean answers lie nearest to which distribution, in words. goals: of
    `load_goals`.
    """
    goals = goals.dropna(subset=["value"])  # a way that cannot be measured is near nothing
    first = goals.loc[goals.groupby(["method", "group"])["value"].idxmin()]
    return "; ".join(
        f"{runs.titled(group)} tasks, to the {goal}: {', '.join(names(mine))}"
        for (group, goal), mine in first.groupby(["group", "goal"])
    )


def _lines(ends: pd.DataFrame) -> list[tuple[str, str]]:
    """Method and the base's form that it is compared with; raw text stands twice."""
    both = [(name, against) for name in names(ends) for against in (CHAT, COMPLETION)]
    return [(name, against) for name, against in both if against == CHAT or name == RAW]


def record(ends: pd.DataFrame) -> None:
    """Every number of `tables` as a measured claim: regained@back-to-pretraining, kept@raw-text."""
    for (name, against), (value, words) in product(_lines(ends), RECORDED.items()):
        values = pick(ends, name, value, against=against)
        sentence = f"{words}: {formatted(values)} ({runs.counted(len(runs.usable(values)))})"
        what = value if against == CHAT else f"{value}-against-raw-text"
        runs.record(what, estimate(values), sentence, ladder=slug(name), task=ALL)


def tables(ends: pd.DataFrame, methods: pd.DataFrame, found: dict[str, list[Verdict]]) -> str:
    """All tasks: every method as it is judged; references and methods with the other numbers.

    ends: of `at_end`, with `kept`; found: of `judge`.
    """
    judged, others = [], []
    for name in REFERENCES:
        means = where(methods, method=name).groupby("parent")[list(OTHERS)[:-1]].mean()
        kept = 1 if name == "crystal" else "–"
        others.append([name, *(formatted(means[value]) for value in means), kept])
    for name, against in _lines(ends):
        numbers = [formatted(pick(ends, name, value, against=against)) for value in JUDGED | OTHERS]
        form = "in chat form" if against == CHAT else "as raw text"
        line = name if name != RAW else f"{name}, against the base {form}"
        n = int(pick(ends, name, "distance", against=against).notna().sum())
        verdict = found[name][0].verdict
        judged.append([line, n, *numbers[:2], verdict if against == CHAT else ""])
        if against == CHAT:  # these are of no base
            others.append([name, *numbers[2:]])
    first = table(["way", "bases", *JUDGED.values(), "remelts"], judged)
    return f"{first}\n\n{table(['way', *OTHERS.values()], others)}"


def by_parent(ends: pd.DataFrame, methods: pd.DataFrame) -> str:
    """All tasks, parent by parent: liquidity of base and crystal, then what every method does."""
    liquidity = methods.groupby(["method", "parent"])["liquidity"].mean()
    there = list(methods["parent"].unique())
    base, crystal = (liquidity[end][there] for end in ("base", "crystal"))
    rows = [
        ["liquidity of the base, bits", *map(fmt, base)],
        ["of the crystal", *map(fmt, crystal)],
        ["left in the crystal", *map(fmt, crystal / base)],
    ]
    for (value, words), name in product(JUDGED.items(), names(ends)):
        rows.append([f"{words}: {name}", *map(fmt, pick(ends, name, value).reindex(there))])
    return table(["", *there], rows)


def _of_all(values: pd.Series) -> float:
    """The mean; nan where one of the tasks has no number, as in what is judged."""
    return values.mean(skipna=False)


def asked(methods: pd.DataFrame) -> str:
    """Every way of asking, of the crystal and of the base: all tasks together."""
    head = ["asked by", "liquidity of the crystal, bits", "of the base", "crystal over base"]
    head += ["entropy of the crystal, bits", "of the base"]
    head += ["invalid-answer mass, crystal", "residual mass, crystal"]
    values, rows = ["liquidity", "entropy", "invalid", "residual"], []
    for name, mine in where(methods, kind=ASKING).groupby("method", sort=False):
        base, crystal = (
            where(mine, start=start).groupby("parent")[values].agg(_of_all)
            for start in ("base", CRYSTAL)
        )
        left = (crystal["liquidity"] / base["liquidity"]).rename("ratio")
        numbers = [crystal["liquidity"], base["liquidity"], left, crystal["entropy"]]
        numbers += [base["entropy"], crystal["invalid"], crystal["residual"]]
        rows.append([name, *map(formatted, numbers)])
    return table(head, rows)
