"""The claims over all tasks together, each task a unit: what can be said of tasks like these.

Ratios are of means over tasks; nulls of tasks that the same contexts answer go together. Tasks
asked in one context have no part. None: no data of this design could make the claim hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from . import claims
from . import evidence as ev
from . import inference as inf
from . import phases as ph
from .claims import Seed
from .evidence import Evidence
from .inference import NOTHING, Estimate, Null
from .judging import Verdict, judge
from .phases import Array

Given = Mapping[str, Sequence[Evidence]]  # task -> evidence of each stage that is compared


def several(given: Given) -> list[Sequence[Evidence]]:
    """The tasks that were asked in more than one context, if they are two or more."""
    parts = [each for each in given.values() if len(np.unique(each[0].units)) > 1]
    return parts if len(parts) > 1 else []


def liquid(given: Given, nulls: Mapping[str, Null], seed: int) -> Verdict | None:
    """many-laws, on the tasks that have a null: those with two wordings of a context."""
    parts = several({task: given[task] for task in nulls})
    if not parts:
        return None
    shares = [
        float(ev.liquidity(base, ones(base))) / np.log2(base.law.shape[1]) for (base,) in parts
    ]
    null = inf.pooled(list(nulls.values()), seed)
    return _counted(judge("many-laws", _mean(shares, 0, 1), null), parts)


def collapse(given: Given, nulls: Mapping[str, Null], seed: int) -> Verdict | None:
    """collapse; the spread of a task is the sum over its options, not their mean: else a coin would
    outweigh fifty times a number of a hundred.
    """
    parts, null = several(given), inf.pooled(list(nulls.values()), seed)
    if null is None:
        return None
    before, after = (_each(_distance, parts, stage) for stage in (0, 1))
    nothing = "the base has no spread that can be told"
    number = _quotient(after, before)
    return _counted(judge("collapse", number, null, chance=1.0, nothing=nothing), parts)


def stays_frozen(given: Given) -> Verdict:
    """stays-frozen: liquidity that all tasks together gain after SFT, over the base's."""
    parts = several(given)
    before, sft, final = (_each(ev.liquidity, parts, stage) for stage in range(3))
    weights = inf.leave_one_out(np.arange(len(parts)))
    back = inf.estimate(lambda w: ph.ratio(w @ (final - sft), w @ before), weights)
    return _counted(judge("stays-frozen", back), parts)


def same_options(
    given: Given, own: Mapping[str, Seed], *, seed: int, permutations: int
) -> Verdict | None:
    """same-options, on the tasks that have a seed."""
    share, nulls = [], []
    for task, (*_, final) in given.items():
        if task in own and len(np.unique(final.units)) > 1:
            kept, mass = own[task], claims.kept_mass(final, own[task])
            share.append(float(ph.ratio(mass(ones(final)), kept.ceiling)))
            relabelled = inf.relabellings(len(kept.mask), permutations, seed)
            draws = ph.probmass(final.law.mean(0), kept.mask[relabelled])
            observed = float(mass(ones(final)))
            nulls.append(inf.against("as many options taken at random", observed, draws))
    null = inf.pooled(nulls, seed)
    if null is None or len(share) < 2:
        return None
    return _counted(judge("same-options", _mean(share, 0), null), share)


def little_promoted(given: Given) -> Verdict | None:
    """little-promoted, on the tasks whose contexts make two halves."""
    parts = [three for three in several(given) if claims.splits(three[0], 1)]
    if len(parts) < 2:
        return None
    gained = [claims.promoted(sft, final).here for _, sft, final in parts]
    return _counted(judge("little-promoted", _mean(gained)), parts)


def ones(given: Evidence) -> Array:
    """Every prompt alike."""
    return np.ones(len(given.law))


def _each(
    statistic: Callable[[Evidence, Array], Array], parts: Iterable[Sequence[Evidence]], stage: int
) -> Array:
    """One number a task."""
    return np.array([float(statistic(found[stage], ones(found[stage]))) for found in parts])


def _distance(given: Evidence, w: Array) -> Array:
    """Mean squared distance between two prompts' distributions."""
    return ev.spread(given, w) * given.law.shape[1]


def _mean(values: Sequence[float], low: float = -np.inf, high: float = np.inf) -> Estimate:
    return inf.student(np.asarray(values), low=low, high=high) if len(values) > 1 else NOTHING


def _quotient(upper: Array, lower: Array) -> Estimate:
    """Ratio of means over tasks."""
    weights = inf.leave_one_out(np.arange(len(upper)))
    return inf.ratio(lambda w: w @ upper / w.sum(-1), lambda w: w @ lower / w.sum(-1), weights)


def _counted(verdict: Verdict, parts: Sequence) -> Verdict:
    return dataclasses.replace(verdict, reason=f"{verdict.reason} ({len(parts)} tasks)")
