"""What gives diversity back? Every way of asking the crystal and of training it on, in numbers.

The crystal is RLVR's end and the reference is the base, both in chat form and asked the probe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import pandas as pd

from ..ask.cells import TEMPERATURES
from ..ask.ladders import Checkpoint, load_ladder
from ..ask.prompts import CHAT, COMPLETION, INSTRUCTED, PROBE
from ..ask.tasks import PHASE_TASKS
from ..errors import CrystalError
from ..measure import chain, evidence, quantities
from ..measure.claims import Verdict
from ..measure.quantities import Array
from ..present import show
from ..present.training_figures import load_report
from . import runs
from .runs import ALL, APART, by_group, formatted, means, tidy, where

CRYSTAL = "rlvr"  # the checkpoint that is remelted
FROZEN = 0.5  # at most this share of the base's liquidity; what is not frozen cannot be remelted
ASKING, TRAINING, REFERENCE = "asking", "training", "reference"
ASKED, ASKED_BASE = "asking", "liquid"  # the runs that read a checkpoint as it is: crystal, base
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
    """`runs.rows` of every parent in `ladders`, method and step that is recorded.

    start: the checkpoint that was asked or trained on. kind "reference": base and crystal
    themselves. Measured from the base in chat form; to_raw: as to_base, from the base as raw text.
    measurable is 1 where enough prompts are answered, else 0 and the others nan.
    Raises: CrystalError if nothing of these parents is recorded.
    """
    checkpoints, found = recorded(name, ladders), {CHAT: [], COMPLETION: []}
    if not checkpoints:
        what = f"of {name!r} nothing is recorded for {', '.join(ladders)}"
        raise CrystalError(what, hint=f"make ladder LADDER={name}")
    read = _asked_the_probe(name, [c.name for c in checkpoints])
    for parent in dict.fromkeys(c.parent for c in checkpoints):
        frames = read | _asked_the_probe(parent, ["base", CRYSTAL])
        aim = load_ladder(parent).seed
        for form, rows in found.items():
            origin = runs.probe(frames["base"], form)
            for c, way, place in _ways(parent, checkpoints):
                asked = way.form, way.temperature
                rows += runs.rows(frames[c.name], c, origin, aim, asked, **place)
    frame, raw = map(pd.DataFrame, found.values())
    return frame.assign(to_raw=raw["to_base"], measurable=frame["liquidity"].notna().astype(float))


def _ways(parent: str, checkpoints: Sequence[Checkpoint]) -> Iterator[tuple]:
    """Checkpoint, method and the columns that say which, of one parent."""
    for name, (checkpoint, form) in REFERENCES.items():
        place = {"start": checkpoint, "method": name, "kind": REFERENCE, "step": 0}
        yield load_ladder(parent).checkpoint(checkpoint), Method(name, REFERENCE, "", form), place
    for c in checkpoints:
        run, start = (ASKED, "base") if c.run == ASKED_BASE else (c.run, CRYSTAL)
        for way in METHODS:
            if (c.parent, run) == (parent, way.run):
                yield c, way, {"start": start, "method": way.name, "kind": way.kind}


def _asked_the_probe(ladder: str, checkpoints: Sequence[str]) -> dict[str, pd.DataFrame]:
    asked, read = [p.id for p in PROBE], runs.by_checkpoint(ladder, checkpoints=checkpoints)
    return {name: frame[frame["prompt"].isin(asked)] for name, frame in read.items()}


def recorded(name: str, ladders: Sequence[str]) -> list[Checkpoint]:
    """The checkpoints of whole runs from those parents that are frozen."""
    left = liquid(name, ladders)
    every = runs.recorded_checkpoints(name)
    return [c for c in every if c.parent in ladders and c.parent not in left]


def liquid(name: str, ladders: Sequence[str]) -> list[str]:
    """Those parents of whole runs that are left out, since they are not frozen."""
    there = dict.fromkeys(c.parent for c in runs.recorded_checkpoints(name))
    return [parent for parent in there if parent in ladders and not frozen(parent)]


def frozen(ladder: str) -> bool:
    """Whether the crystal's liquidity, mean over tasks, is at most FROZEN of the base's."""

    def bits(found: Array) -> float:
        return quantities.liquidity_bits(found[~np.isnan(found).any(1)])

    base, crystal = (
        np.mean([*map(bits, runs.origin_of(ladder, checkpoint).values())])
        for checkpoint in ("base", CRYSTAL)
    )
    return bool(crystal <= FROZEN * base)


# --- how much came back


def load_shares(methods: pd.DataFrame) -> pd.DataFrame:
    """What came back of what began at the crystal, by parent, method, step and group of tasks.

    regained: (after - crystal) / (base - crystal) in liquidity. distance: mean JSD to the base's
    answer, prompt by prompt, over the crystal's. against: the base's form, chat as registered; a
    second row compares raw text with the base as raw text. Beside them the means of `load_methods`.
    """
    keys, place = ["parent", "start", "method", "kind", "step", "checkpoint"], ["parent", "group"]
    every = by_group(methods, keys, [*runs.NUMBERS, "to_raw", "measurable"])
    began = where(every[every["kind"] != REFERENCE], start=CRYSTAL)
    raw = where(began, method=RAW)
    compared = ((CHAT, began, "base", "to_base"), (COMPLETION, raw, "base as raw text", "to_raw"))
    parts = []
    for form, after, base, to in compared:
        after = after.reset_index(drop=True)
        start, crystal = (
            after[place].merge(where(every, method=name), "left") for name in (base, "crystal")
        )
        gained = after["liquidity"] - crystal["liquidity"]
        regained = quantities.ratio(gained, start["liquidity"] - crystal["liquidity"])
        distance = quantities.ratio(after[to], crystal[to])
        parts.append(after.assign(against=form, regained=regained, distance=distance))
    return pd.concat(parts, ignore_index=True)


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
    """Pairs of bases of one family ("first, second"), in chat form, by group: JSD in bits, prompt
    by prompt, a yardstick for distances. Empty where no family has two.
    """
    rows = []
    for first, second in combinations(ladders, 2):
        if runs.family(first) == runs.family(second):
            shown = load_ladder(first).demonstrated
            one, other = runs.origin_of(first), runs.origin_of(second)
            for task in PHASE_TASKS:
                far = float(quantities.jsd_bits(one[task], other[task]).mean())
                rows.append((f"{first}, {second}", APART[task not in shown], far))
    frame = pd.DataFrame(rows, columns=["parent", "group", "to_base"])
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


def pick(ends: pd.DataFrame, method: str, value: str, group: str = ALL, against: str = CHAT):
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
    over = pd.Series({name: sign * pick(ends, name, value).mean() for name in methods})
    return methods_text(ends, value, [over.fillna(-np.inf).idxmax()])


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


def load_numbers(ends: pd.DataFrame) -> pd.DataFrame:
    """`runs.tidy` of all tasks by method and `against`; methods in their order."""
    mine = runs.ordered(where(ends, group=ALL), method=names(ends))
    return tidy(mine, ["method", "against"], [*JUDGED, *OTHERS])


def record(ends: pd.DataFrame) -> None:
    """Numbers of `tables` as measured claims: regained@back-to-pretraining, kept@raw-text."""
    numbers = means(load_numbers(ends))
    for (name, against), mine in numbers.groupby(["method", "against"], sort=False):
        for row in mine[mine["quantity"].isin(RECORDED)].itertuples():
            what = row.quantity if against == CHAT else f"{row.quantity}-against-raw-text"
            words, number = RECORDED[row.quantity], show.interval(row)
            sentence = f"{words}: {number} ({runs.counted(row.parents)})"
            runs.record(what, row, sentence, ladder=show.slug(name), task=ALL)


def tables(ends: pd.DataFrame, methods: pd.DataFrame, found: dict[str, list[Verdict]]) -> str:
    """All tasks: every method as it is judged; references and methods with the other numbers.

    ends: of `at_end`, with `kept`; found: of `judge`.
    """
    values = ["entropy", "liquidity", "probmass"]
    references = by_group(where(methods, kind=REFERENCE), ["parent", "method"], values)
    references = where(references, group=ALL)
    references["kept"] = np.where(references["method"] == "crystal", 1.0, np.nan)
    tidied = tidy(references, ["method"], list(OTHERS))
    others = [[name, *rest] for name, _, *rest in runs.lines(tidied)]
    numbers, judged = load_numbers(ends), []
    distances = means(numbers, quantity="distance").set_index(["method", "against"])["parents"]
    for name, against, _, *cells in runs.lines(numbers):
        form = "in chat form" if against == CHAT else "as raw text"
        way = f"{name}, against the base {form}" if name == RAW else name
        verdict = found[name][0].verdict if against == CHAT else ""
        judged.append([way, distances[name, against], *cells[:2], verdict])
        if against == CHAT:  # the others are of no base
            others.append([name, *cells[2:]])
    first = show.table(["way", "bases", *JUDGED.values(), "remelts"], judged)
    return f"{first}\n\n{show.table(['way', *OTHERS.values()], others)}"


def by_parent(ends: pd.DataFrame, methods: pd.DataFrame) -> str:
    """All tasks, parent by parent: liquidity of base and crystal, then what every method does."""
    liquidity = methods.groupby(["method", "parent"])["liquidity"].mean()
    there = list(methods["parent"].unique())
    base, crystal = (liquidity[end][there] for end in ("base", "crystal"))
    rows = {
        "liquidity of the base, bits": base,
        "of the crystal": crystal,
        "left in the crystal": crystal / base,
    }
    for (value, words), name in product(JUDGED.items(), names(ends)):
        rows[f"{words}: {name}"] = pick(ends, name, value).reindex(there)
    numbers = ([what, *map(show.number, values)] for what, values in rows.items())
    return show.table(["", *there], numbers)


def asked(methods: pd.DataFrame) -> str:
    """Every way of asking, of the crystal and of the base: all tasks together."""
    head = ["asked by", "liquidity of the crystal, bits", "of the base", "crystal over base"]
    head += ["entropy of the crystal, bits", "of the base"]
    head += ["invalid-answer mass, crystal", "residual mass, crystal"]
    values, rows = ["liquidity", "entropy", "invalid", "residual"], []
    every = by_group(where(methods, kind=ASKING), ["parent", "start", "method"], values)
    for name, mine in where(every, group=ALL).groupby("method", sort=False):
        base, crystal = (where(mine, start=at).set_index("parent") for at in ("base", CRYSTAL))
        left = (crystal["liquidity"] / base["liquidity"]).rename("ratio")
        numbers = [crystal["liquidity"], base["liquidity"], left, crystal["entropy"]]
        numbers += [base["entropy"], crystal["invalid"], crystal["residual"]]
        rows.append([name, *map(formatted, numbers)])
    return show.table(head, rows)
