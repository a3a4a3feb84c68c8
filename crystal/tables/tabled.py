"""The claims on a table of answers of any ladder, by the marks and the rule of the book: task by task, and over all tasks.

Where a ladder has no SFT stage its first later stage stands in its place; where it has only one later stage, settling is not
judged. A task asked by one prompt alone has no spread to lose and nothing to choose a seed by: it gives numbers, no verdicts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import CrystalError
from ..measure import claims
from ..measure import evidence as ev
from ..measure import inference as inf
from ..measure import phases as ph
from ..measure.adjusting import adjusted
from ..measure.claims import QUANTILE
from ..measure.evidence import Evidence
from ..measure.judging import Verdict, judge
from ..measure.phases import Array
from .laws import Table
from .names import POOLED

PHASES = 3  # that a task goes through


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


def rungs(table: Table, ladder: str, task: str) -> dict[str, Evidence]:
    """Stage -> evidence of one task; prompts with fewer than `evidence.FEWEST` draws at any stage are left out of all."""
    mine = table.frame[(table.frame["ladder"] == ladder) & (table.frame["task"] == task)]
    scarce = mine.loc[mine["draws"] < ev.FEWEST, "prompt"].unique()
    mine = mine[~mine["prompt"].isin(scarce)]
    return {stage: ev.asked(np.stack(part["law"].tolist()), part["unit"].to_numpy(), part["draws"].to_numpy())
            for stage, part in mine.groupby("stage", sort=False)}


def of_task(found: Mapping[str, Evidence], who: Roles, others: Sequence[Array] = (), *, quantile: float = QUANTILE, seed: int = 0,
            permutations: int = 999, tick: Callable[[], object] = bool) -> list[Verdict]:
    """The verdicts on one task that its stages allow, not adjusted.

    others: seeds of the ladder's other tasks. tick: called after each of the PHASES.
    """
    how, out = {"seed": seed, "permutations": permutations}, []
    base, tuned, final = (found.get(stage) for stage in who)
    if base is not None:
        out += claims.liquid(base, **how)
    tick()
    if base is not None and tuned is not None:
        out += claims.nucleation(base, tuned, others, **how)
    tick()
    if base is not None and tuned is not None and final is not None:
        out += claims.settling(base, tuned, final, quantile=quantile, **how)
    tick()
    return out


def seeds(every: Mapping[str, Mapping[str, Evidence]], who: Roles) -> dict[str, Array]:
    """Task -> its seed, where both stages were asked by units enough to choose one."""
    pairs = {task: (found.get(who.base), found.get(who.tuned)) for task, found in every.items()}
    return {task: inf.split_seed(base.law, tuned.law, chosen=base.mask(ev.SELECTION)).seed
            for task, (base, tuned) in pairs.items() if base is not None and tuned is not None and claims.splits(base, 1)}


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
    every = {task: found for task in tasks if (found := rungs(table, ladder, task))}
    if not any(who.base in found and len(found) > 1 for found in every.values()):
        said = f"has {ev.FEWEST} or more draws on the options at every stage"
        raise CrystalError(f"no prompt of the ladder {ladder!r:.60} {said}", where=table.path,
                           mend="draw more answers, or judge another ladder: --ladder NAME")
    named = seeds(every, who)
    raw = {task: of_task(found, who, [law for name, law in named.items() if name != task], quantile=quantile, seed=seed,
                         permutations=permutations, tick=tick) for task, found in every.items()}
    out = adjusted(raw)
    over = over_tasks(every, who, named, raw, quantile=quantile, seed=seed, permutations=permutations)
    return out | ({POOLED: over} if over else {})


# --- over tasks ------------------------------------------------------------------------------------------------------


def over_tasks(every: Mapping[str, Mapping[str, Evidence]], who: Roles, named: Mapping[str, Array],
               raw: Mapping[str, Sequence[Verdict]], *, quantile: float = QUANTILE, seed: int = 0,
               permutations: int = 999) -> list[Verdict]:
    """The claims on the tasks together, each task a unit: what can be said of tasks like these where a task has few prompts.

    Ratios are of means over tasks. Tasks with one unit have no part in what needs two. Fewer than two tasks: nothing.
    """
    several = {task: found for task, found in every.items() if claims.splits(next(iter(found.values())), 1)}
    have = lambda *stages: [found for found in several.values() if all(stage in found for stage in stages)]  # noqa: E731
    how, out = {"n": permutations, "seed": seed}, []
    liquid = inf.pooled([v.null for verdicts in raw.values() for v in verdicts if v.claim == "many-laws" and v.null], seed)
    if len(based := have(who.base)) > 1:
        shares = [float(ev.liquidity(x[who.base], _all(x[who.base]))) / np.log2(x[who.base].law.shape[1]) for x in based]
        out.append(judge("many-laws", _mean(shares, 0, 1), liquid))
    if len(pairs := have(who.base, who.tuned)) > 1:
        before, after = (_each(ev.spread, pairs, stage) for stage in (who.base, who.tuned))
        fall = _each(ev.liquidity, pairs, who.base) - _each(ev.liquidity, pairs, who.tuned)
        null = inf.flip_null("the liquidity lost with the rungs' names swapped task by task", fall, **how)
        out.append(judge("collapse", _quotient(after, before), null, chance=1.0,
                         nothing="the base has no spread that can be told"))
        far, nulls = [], []  # a task alone may have too few units for a verdict, not for a part in this one
        for found in pairs:
            laws = [found[stage].law for stage in (who.base, who.tuned)]
            permuted = inf.relabellings(laws[0].shape[1], permutations, seed)
            nulls.append(inf.relabelled_seed_null(*laws, permuted, found[who.base].half))
            other = [law for name, law in named.items() if several.get(name) is not found]
            distances = claims.seed_distances(found[who.base], found[who.tuned], other, seed=seed)
            far.append([float(distance(_all(found[who.base]))) for distance in (distances.seed, distances.rival)])
        out.append(judge("seed-in-base", _quotient(*np.array(far).T), inf.pooled(nulls, seed),
                         nothing="the laws of the tuned stage cannot be told from a rival"))
    if who.final and len(triples := have(*who)) > 1:
        out += _settled(triples, who, quantile, seed, permutations)
    return [dataclasses.replace(v, reason=f"{v.reason} ({len(several)} tasks)") for v in out]


def _settled(triples: Sequence[Mapping[str, Evidence]], who: Roles, quantile: float, seed: int,
             permutations: int) -> list[Verdict]:
    laws = [[x[stage] for stage in who] for x in triples]
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


def _each(statistic: Callable[[Evidence, Array], Array], every: Sequence[Mapping[str, Evidence]], stage: str) -> Array:
    """One number a task."""
    return np.array([float(statistic(found[stage], _all(found[stage]))) for found in every])


def _mean(values: Sequence[float], low: float = -np.inf, high: float = np.inf) -> inf.Estimate:
    return inf.student(np.array(values), low=low, high=high)


def _quotient(upper: Array, lower: Array) -> inf.Estimate:
    """Ratio of means over tasks."""
    weights = inf.leave_one_out(np.arange(len(upper)))
    return inf.ratio(lambda w: w @ upper / w.sum(-1), lambda w: w @ lower / w.sum(-1), weights)


