"""The claims on a table of answers of any ladder, by the marks and the rule of the book: task by task, and over all tasks.

Where a ladder has no SFT stage its first later stage stands in its place; where it has only one
later stage, settling is not judged. A task asked by one prompt alone has no spread to lose and
nothing to choose a seed by: it gives numbers, no verdicts. Where the table says what was answered,
stages are compared on the prompts that all of them answer, if these are enough.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import CrystalError
from ..measure import claims
from ..measure import evidence as ev
from ..measure import inference as inf
from ..measure import phases as ph
from ..measure.adjusting import adjusted
from ..measure.answered import Count, count, no_verdicts
from ..measure.claims import QUANTILE
from ..measure.evidence import Evidence
from ..measure.judging import Verdict, judge
from ..measure.phases import Array
from .laws import Table
from .names import POOLED

PHASES = 3  # that a task goes through
CLAIMS = {"liquid": ("many-laws",), "nucleation": ("collapse", "seed-in-base"),
          "settling": ("same-options", "little-promoted", "smaller-move")}
Parts = dict[
    str, Sequence[Evidence] | Count
]  # phase -> what it compares, stage by stage, or why it cannot


class Roles(NamedTuple):
    """Which stages of a ladder are compared; final is "" where nothing follows the tuned one."""

    base: str
    tuned: str
    final: str

    @property
    def told(self) -> str:
        """What stands in another's place, as a sentence; empty if nothing does."""
        said = [] if self.tuned == "sft" else [f"{self.tuned} stands in the place of SFT"]
        return "; ".join(said + ([] if self.final else ["no later stage, so settling is not judged"]))


def roles(stages: Sequence[str]) -> Roles:
    """stages: those a ladder has, base first, in canonical order."""
    _, *later = stages
    tuned = "sft" if "sft" in later else later[0]
    return Roles(stages[0], tuned, later[-1] if later[-1] != tuned else "")


def rungs(table: Table, ladder: str, task: str, stages: Sequence[str] = ()) -> dict[str, Evidence]:
    """Stage -> evidence of one task on the prompts that all of `stages` (none named: all there are)
    answer.

    Prompts with fewer than `evidence.FEWEST` draws at any stage are left out of all.
    """
    mine = table.frame[(table.frame["ladder"] == ladder) & (table.frame["task"] == task)]
    scarce = mine.loc[mine["draws"] < ev.FEWEST, "prompt"].unique()
    mine = mine[~mine["prompt"].isin(scarce) & (mine["stage"].isin(stages) if stages else True)]
    mine = mine[mine.groupby("prompt")["stage"].transform("nunique") == mine["stage"].nunique()]
    return {stage: ev.asked(np.stack(part["law"].tolist()), part["unit"].to_numpy(), part["draws"].to_numpy())
            for stage, part in mine.groupby("stage", sort=False)}


def answered_by(table: Table, ladder: str, task: str, stages: Sequence[str]) -> Count | None:
    """How many prompts all of these stages answer; None where the table does not say, or lacks a
    stage.
    """
    if table.asked is None:
        return None
    mine = table.asked[(table.asked["ladder"] == ladder) & (table.asked["task"] == task)]
    masses = [mine.loc[mine["stage"] == stage, "mass"].to_numpy() for stage in stages]
    return count(*masses) if all(len(mass) for mass in masses) else None


def phases_of(table: Table, ladder: str, task: str, who: Roles) -> Parts:
    """What each phase compares, where its stages are there: the evidence of each, or the count of
    too few answers.
    """
    parts: Parts = {}
    for phase, stages in {"liquid": who[:1], "nucleation": who[:2], "settling": who}.items():
        counted = answered_by(table, ladder, task, stages)
        found = rungs(table, ladder, task, stages)
        if counted and not counted.measurable:
            parts[phase] = counted
        elif all(stage in found for stage in stages):
            parts[phase] = [found[stage] for stage in stages]
    return parts


def of_task(
    parts: Parts,
    others: Sequence[Array] = (),
    *,
    quantile: float = QUANTILE,
    seed: int = 0,
    permutations: int = 999,
    tick: Callable[[], object] = bool,
) -> list[Verdict]:
    """The verdicts on one task that its stages allow, not adjusted.

    others: seeds of the ladder's other tasks. tick: called after each of the PHASES.
    """
    how, out = {"seed": seed, "permutations": permutations}, []
    judged = {
        "liquid": lambda base: claims.liquid(base, **how),
        "nucleation": lambda base, tuned: claims.nucleation(base, tuned, others, **how),
        "settling": lambda *three: claims.settling(*three, quantile=quantile, **how),
    }
    for phase, judge_phase in judged.items():
        given = parts.get(phase)
        if isinstance(given, Count):
            out += no_verdicts(CLAIMS[phase], given)
        elif given:
            out += judge_phase(*given)
        tick()
    return out


def _there(every: Mapping[str, Parts], phase: str) -> dict[str, list[Evidence]]:
    """Task -> what a phase compares, where it can be measured."""
    found = {task: parts.get(phase) for task, parts in every.items()}
    return {task: given for task, given in found.items() if given and not isinstance(given, Count)}


def seeds(every: Mapping[str, Parts]) -> dict[str, Array]:
    """Task -> its seed, where both stages were asked by units enough to choose one."""
    return {
        task: inf.split_seed(base.law, tuned.law, chosen=base.mask(ev.SELECTION)).seed
        for task, (base, tuned) in _there(every, "nucleation").items()
        if claims.splits(base, 1)
    }


def check(*, quantile: float, seed: int, permutations: int) -> None:
    """Raises: CrystalError for a quantile, number of permutations or seed that is none."""
    claims.check_quantile(quantile)
    inf.check_permutations(permutations)
    inf.generator(seed, "check")


def survey(
    table: Table,
    ladder: str,
    *,
    quantile: float = QUANTILE,
    seed: int = 0,
    permutations: int = 999,
    tick: Callable[[], object] = bool,
) -> dict[str, list[Verdict]]:
    """Task -> verdicts of one ladder, every claim adjusted over the tasks by Holm's method; last, under POOLED, over all tasks.

    tick: called after each of the PHASES of each task. Raises: CrystalError as `check` does.
    """
    check(quantile=quantile, seed=seed, permutations=permutations)
    who, tasks = roles(table.ladders[ladder]), list(dict.fromkeys(table.frame.loc[table.frame["ladder"] == ladder, "task"]))
    if table.asked is not None:  # a task that nobody answers has no law, and yet a verdict
        tasks = list(dict.fromkeys(table.asked.loc[table.asked["ladder"] == ladder, "task"]))
    whole = {task: rungs(table, ladder, task) for task in tasks}
    every = {task: phases_of(table, ladder, task, who) for task in tasks}
    every = {task: parts for task, parts in every.items() if parts or whole[task]}
    if table.asked is None and not any(
        who.base in found and len(found) > 1 for found in whole.values()
    ):
        said = f"has {ev.FEWEST} or more draws on the options at every stage"
        raise CrystalError(f"no prompt of the ladder {ladder!r:.60} {said}", where=table.path,
                           mend="draw more answers, or judge another ladder: --ladder NAME")
    named = seeds(every)
    raw = {
        task: of_task(
            parts,
            [law for name, law in named.items() if name != task],
            quantile=quantile,
            seed=seed,
            permutations=permutations,
            tick=tick,
        )
        for task, parts in every.items()
    }
    out = adjusted(raw)
    several = (
        sum(_several(list(found.values())) for found in whole.values())
        if table.asked is None
        else None
    )
    over = over_tasks(
        every, several, named, raw, quantile=quantile, seed=seed, permutations=permutations
    )
    return out | ({POOLED: over} if over else {})


def _several(given: Sequence[Evidence] | Count) -> bool:
    """Whether enough units were asked for a part in what is said over tasks."""
    return bool(given) and not isinstance(given, Count) and claims.splits(given[0], 1)


# --- over tasks ------------------------------------------------------------------------------------------------------


def over_tasks(
    every: Mapping[str, Parts],
    several: int | None,
    named: Mapping[str, Array],
    raw: Mapping[str, Sequence[Verdict]],
    *,
    quantile: float = QUANTILE,
    seed: int = 0,
    permutations: int = 999,
) -> list[Verdict]:
    """The claims on the tasks together, each task a unit: what can be said of tasks like these where a task has few prompts.

    Ratios are of means over tasks. Tasks with one unit have no part in what needs two; several: how
    many have more; None: told of every claim apart, for some tasks cannot be measured at some
    stage. Fewer than two tasks: nothing.
    """
    how, out = {"n": permutations, "seed": seed}, []
    have = lambda phase: {task: x for task, x in _there(every, phase).items() if _several(x)}  # noqa: E731
    liquid = inf.pooled([v.null for verdicts in raw.values() for v in verdicts if v.claim == "many-laws" and v.null], seed)
    if len(based := have("liquid")) > 1:
        shares = [
            float(ev.liquidity(base, _all(base))) / np.log2(base.law.shape[1])
            for (base,) in based.values()
        ]
        out.append(judge("many-laws", _mean(shares, 0, 1), liquid))
    if len(pairs := have("nucleation")) > 1:
        before, after = (_each(ev.spread, pairs.values(), stage) for stage in (0, 1))
        fall = _each(ev.liquidity, pairs.values(), 0) - _each(ev.liquidity, pairs.values(), 1)
        null = inf.flip_null("the liquidity lost with the rungs' names swapped task by task", fall, **how)
        out.append(judge("collapse", _quotient(after, before), null, chance=1.0,
                         nothing="the base has no spread that can be told"))
        far, nulls = [], []  # a task alone may have too few units for a verdict, not for a part in this one
        for task, (base, tuned) in pairs.items():
            permuted = inf.relabellings(base.law.shape[1], permutations, seed)
            nulls.append(inf.relabelled_seed_null(base.law, tuned.law, permuted, base.half))
            other = [law for name, law in named.items() if name != task]
            distances = claims.seed_distances(base, tuned, other, seed=seed)
            far.append(
                [float(distance(_all(base))) for distance in (distances.seed, distances.rival)]
            )
        out.append(judge("seed-in-base", _quotient(*np.array(far).T), inf.pooled(nulls, seed),
                         nothing="the laws of the tuned stage cannot be told from a rival"))
    if len(triples := have("settling")) > 1:
        out += _settled(list(triples.values()), quantile, seed, permutations)
    phase_of = {claim: phase for phase, claims_ in CLAIMS.items() for claim in claims_}
    return [
        dataclasses.replace(
            v, reason=f"{v.reason} ({several or len(have(phase_of[v.claim]))} tasks)"
        )
        for v in out
    ]


def _settled(
    laws: Sequence[Sequence[Evidence]], quantile: float, seed: int, permutations: int
) -> list[Verdict]:
    kept = [claims.kept(*three, quantile=quantile, seed=seed) for three in laws]
    nulls = [inf.against("as many options taken at random", float(k.mass(_all(three[0]))),
                         k.relabelled(inf.relabellings(three[0].law.shape[1], permutations, seed)))
             for k, three in zip(kept, laws, strict=True)]
    share = [float(ph.ratio(k.mass(_all(three[0])), k.ceiling)) for k, three in zip(kept, laws, strict=True)]
    gained = [claims.promoted(tuned, final).value for _, tuned, final in laws]
    moved, first = (np.array([float(ev.distance(a, b, _all(a))) for a, b in pairs]) for pairs in (
        [(tuned, final) for _, tuned, final in laws], [(base, tuned) for base, tuned, _ in laws]))
    return [judge("same-options", _mean(share, 0), inf.pooled(nulls, seed)), judge("little-promoted", _mean(gained)),
            judge("smaller-move", _quotient(moved, first), nothing="the tuned stage did not move the law, as far as can be told")]


def _all(given: Evidence) -> Array:
    return np.ones(len(given.law))


def _each(
    statistic: Callable[[Evidence, Array], Array], every: Iterable[Sequence[Evidence]], stage: int
) -> Array:
    """One number a task."""
    return np.array([float(statistic(found[stage], _all(found[stage]))) for found in every])


def _mean(values: Sequence[float], low: float = -np.inf, high: float = np.inf) -> inf.Estimate:
    return inf.student(np.array(values), low=low, high=high)


def _quotient(upper: Array, lower: Array) -> inf.Estimate:
    """Ratio of means over tasks."""
    weights = inf.leave_one_out(np.arange(len(upper)))
    return inf.ratio(lambda w: w @ upper / w.sum(-1), lambda w: w @ lower / w.sum(-1), weights)


