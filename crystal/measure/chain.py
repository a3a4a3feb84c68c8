"""All claims of one checkpoint series, in order: answered, liquid, collapsed, one seed, frozen.

A claim is tested, and adjusted by Holm's method, where what it rests on holds (else: not reached)
and some data of the design could make it hold (else: not testable).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..errors import CrystalError
from . import claims, joint
from . import evidence as ev
from . import inference as inf
from . import quantities as ph
from .claims import QUANTILE, Seed, Verdict, adjust, holm, judge
from .evidence import Count, Evidence
from .inference import ALPHA, FEWEST, Null
from .joint import Account, Moves
from .quantities import Array

LIQUID, NUCLEATION, SETTLING = "liquid", "nucleation", "settling"
CLAIMS = {
    LIQUID: ("many-distributions",),
    NUCLEATION: ("collapse", "one-seed", "unmixed"),
    SETTLING: ("stays-frozen", "same-options", "little-promoted"),
}
RESTS_ON = {"collapse": "many-distributions", "one-seed": "collapse", "unmixed": "one-seed"}
RESTS_ON |= {"stays-frozen": "collapse", "same-options": "one-seed", "little-promoted": "collapse"}
OVER_TASKS = ("one-seed", "unmixed")  # claims about all tasks at once
NOT_TESTABLE, NOT_REACHED, NOT_MEASURABLE = "not-testable", "not-reached", "not-measurable"
TESTED = ("holds", "fails", "undecided")
VERDICTS = (*TESTED, NOT_TESTABLE, NOT_REACHED, NOT_MEASURABLE)
POOLED = "all tasks"
MOST = 100_000  # permutations

Parts = Mapping[str, Sequence[Evidence] | Count]  # phase -> what it compares, or why it cannot
Given = Mapping[str, Sequence[Evidence]]  # task -> evidence of each stage that is compared


@dataclass(frozen=True)
class Survey:
    """What was found of one series."""

    verdicts: dict[str, list[Verdict]]  # task, or POOLED -> verdicts, adjusted over tasks
    account: Account | None  # what one-seed rests on; None if that cannot be asked

    @property
    def seeds(self) -> dict[str, str]:
        """Task -> the context whose answer in the base is its seed."""
        return self.account.seeds if self.account else {}

    def of(self, task: str) -> dict[str, Verdict]:
        """Claim -> verdict of one task, and of all for the claims about all."""
        whole = [v for v in self.verdicts.get(POOLED, []) if v.claim in OVER_TASKS]
        return {v.claim: v for v in [*whole, *self.verdicts.get(task, [])]}


def check(*, quantile: float, seed: int, permutations: int) -> None:
    """Raises: CrystalError for a quantile, number of permutations or seed that is none."""
    claims.check_quantile(quantile)
    if not FEWEST <= permutations <= MOST:
        what = f"{permutations} permutations, where {FEWEST} to {MOST} make sense"
        raise CrystalError(what, hint="say 999, whose least p-value is 0.001")
    inf.generator(seed, "check")


def survey(
    every: Mapping[str, Parts],
    options: Mapping[str, Sequence[str]] | None = None,
    *,
    quantile: float = QUANTILE,
    seed: int = 0,
    permutations: int = 999,
    tick: Callable[[], object] = bool,
) -> Survey:
    """The verdicts on every claim that the stages allow. every: task -> phase -> evidence of its
    stages: the base; base and SFT; base, SFT and the last one; on the prompts that these answer.
    options: of every task, for `joint.kinds`. tick: called once a task and phase. Raises as
    `check`.
    """
    check(quantile=quantile, seed=seed, permutations=permutations)
    run = _Run(every, options or {}, quantile, {"seed": seed, "permutations": permutations})
    for phase in CLAIMS:
        for claim, step in STEPS.items():
            if step.phase == phase:
                run.ask(claim, step)
        if phase == NUCLEATION:
            run.ask_joint()
        for _ in every:
            tick()
    return Survey(run.verdicts(), run.account)


class _Run:
    """What was judged so far."""

    def __init__(self, every: Mapping[str, Parts], options, quantile: float, how: dict) -> None:
        self.every, self.options, self.quantile, self.how = every, options, quantile, how
        self.tasks: dict[str, dict[str, Verdict]] = {task: {} for task in every}  # by claim
        self.pooled: dict[str, Verdict] = {}  # of all tasks together
        self.account: Account | None = None

    def ask(self, claim: str, step: Step) -> None:
        """One claim task by task, and over all: whether it is reached, can hold, and holds."""
        given, best = self.given(step.phase), {}
        for task, parts in given.items():
            if before := self._earlier(claim, task):
                self.tasks[task][claim] = not_reached(claim, before)
            else:
                best[task] = step.best(self, task, *parts) if can_differ(parts[0]) else 1.0
        members = family(best)
        for task in best.keys() - members:
            self.tasks[task][claim] = not_testable(claim, best[task], len(members))
        tested = [task for task in best if task in members]
        judged = adjust([step.judged(self, task, *given[task]) for task in tested])
        for task, verdict in zip(tested, judged):
            self.tasks[task][claim] = verdict
        if several(given):
            if before := self._earlier(claim, POOLED):
                self.pooled[claim] = not_reached(claim, before)
            else:
                self.pooled[claim] = step.pooled(self, given) or not_testable(claim, 1.0)

    def ask_joint(self) -> None:
        """one-seed and unmixed."""
        pairs = self.given(NUCLEATION)
        moves = joint.moves(pairs, joint.kinds(self.options))
        if any(NUCLEATION in parts for parts in self.every.values()):
            self.pooled |= {v.claim: v for v in self._joint(moves, pairs)}
        self.account = joint.account(moves) if moves else None

    def _joint(self, moves: Moves | None, pairs: Given) -> list[Verdict]:
        if not pairs:
            why = "not measurable: on no task are enough prompts answered"
            return [Verdict(claim, NOT_MEASURABLE, why) for claim in OVER_TASKS]
        if before := self._earlier("one-seed", POOLED):
            return [not_reached(claim, before) for claim in OVER_TASKS]
        kinds, contexts = (moves.kinds.max() + 1, len(moves.contexts)) if moves else (1, 1)
        if (best := ev.aligned(kinds, contexts, self.how["permutations"])) > ALPHA:
            few = f"not testable here: tasks of {joint.FEWEST_KINDS} kinds that can move and "
            few += f"{joint.FEWEST_CONTEXTS} contexts that half of them share are needed"
            return [not_testable(claim, best, why="" if moves else few) for claim in OVER_TASKS]
        both = claims.one_seed(moves, **self.how)
        asked = f"{len(moves.tasks)} tasks of {kinds} kinds"
        one, unmixed = (replace(v, reason=f"{v.reason} ({asked})") for v in both)
        if one.verdict != "holds":
            return [one, not_reached("unmixed", one)]
        _, apart = moves.grouped
        if apart <= joint.APART:
            why = f"not testable here: the contexts form no groups (mean silhouette {apart:.2f})"
            if contexts > joint.MOST_CONTEXTS:
                why = f"not testable here: {contexts} contexts are too many to group"
            unmixed = not_testable("unmixed", 1.0, why=why)
        return [one, unmixed]

    def verdicts(self) -> dict[str, list[Verdict]]:
        """Task -> verdicts in the order of CLAIMS, also of what cannot be measured."""
        for task, parts in self.every.items():
            for claim, step in STEPS.items():
                if isinstance(found := parts.get(step.phase), Count):
                    (self.tasks[task][claim],) = no_verdicts([claim], found)
        order = [claim for claimed in CLAIMS.values() for claim in claimed]
        found = self.tasks | ({POOLED: self.pooled} if self.pooled else {})
        return {
            task: [mine[claim] for claim in order if claim in mine] for task, mine in found.items()
        }

    @cached_property
    def own(self) -> dict[str, Seed]:
        """Task -> its seed, where other tasks name one that it has."""
        seeds, how = self.account.seeds if self.account else {}, {"seed": self.how["seed"]}
        return {
            task: claims.seed_of(base, seeds[task], quantile=self.quantile, **how)
            for task, (base, *_) in self.given(SETTLING).items()
            if task in seeds and seeds[task] in base.clusters.astype(str)
        }

    def given(self, phase: str) -> Given:
        """Task -> what a phase compares, where it can be measured."""
        found = {task: parts.get(phase) for task, parts in self.every.items()}
        return {task: one for task, one in found.items() if one and not isinstance(one, Count)}

    def nulls(self, claim: str) -> dict[str, Null]:
        """Task -> null of a claim, where it was tested."""
        found = {task: mine[claim].null for task, mine in self.tasks.items() if claim in mine}
        return {task: null for task, null in found.items() if null}

    def _earlier(self, claim: str, task: str) -> Verdict | None:
        """The verdict that `claim` rests on, where it stops it."""
        name = RESTS_ON.get(claim)
        mine = self.pooled if task == POOLED or name in OVER_TASKS else self.tasks[task]
        before = mine.get(name)
        if before is None or before.verdict == "holds":
            # what rests on all tasks still rests on this task's own collapse
            return self._earlier(name, task) if name in OVER_TASKS and task != POOLED else None
        # where wording was not tried, what differs is not known, but it may still collapse
        passes = name == "many-distributions" and before.verdict == NOT_TESTABLE
        return None if passes else before


# --- no test


def not_reached(claim: str, before: Verdict) -> Verdict:
    """No test, for what the claim rests on does not hold."""
    is_ = "fails" if before.verdict == "fails" else f"is {before.verdict.replace('-', ' ')}"
    return Verdict(claim, NOT_REACHED, f"not reached, for {before.claim} {is_} here")


def not_testable(claim: str, best: float, others: int = 0, why: str = "") -> Verdict:
    """No test, for no data of this design could make the claim hold."""
    beside = f", too much beside {others} others" if best <= ALPHA else ""
    why = why or f"not testable here: at best p = {best:.2g}{beside}"
    return Verdict(claim, NOT_TESTABLE, why)


def no_verdicts(names: Sequence[str], found: Count) -> list[Verdict]:
    """The verdicts on claims that too few prompts answer: no number, and the reason."""
    return [Verdict(claim, NOT_MEASURABLE, found.why) for claim in names]


def family(best: Mapping[str, float]) -> set[str]:
    """The tasks on which a claim could hold, each at its best p-value, by Holm's method among those
    that are left; the hardest go first.
    """
    left = dict(best)
    while left and max(holm(list(left.values()))) > ALPHA:
        del left[max(reversed(left), key=left.get)]
    return set(left)


# --- all tasks together, each a cluster: ratios are of means over tasks


def can_differ(one: Evidence) -> bool:
    """Whether there are two contexts and two options."""
    return len(np.unique(one.clusters)) > 1 and one.distribution.shape[1] > 1


def several(given: Given) -> list[Sequence[Evidence]]:
    """The tasks whose answers could depend on who asks, if there are two."""
    parts = [each for each in given.values() if can_differ(each[0])]
    return parts if len(parts) > 1 else []


def pooled_liquid(run: _Run, given: Given) -> Verdict | None:
    """many-distributions, on the tasks that have a null: those with two wordings of a context."""
    nulls = run.nulls("many-distributions")
    if not (parts := several({task: given[task] for task in nulls})):
        return None
    bits = np.log2([base.distribution.shape[1] for (base,) in parts])
    number = inf.student(_each(ev.liquidity, parts, 0) / bits, low=0, high=1)
    null = inf.pooled(list(nulls.values()), run.how["seed"])
    return _counted(judge("many-distributions", number, null), parts)


def pooled_collapse(run: _Run, given: Given) -> Verdict | None:
    """collapse; the spread of a task is the sum over its options, not their mean: else a coin would
    outweigh fifty times a number of a hundred.
    """
    parts = several(given)
    null = inf.pooled(list(run.nulls("collapse").values()), run.how["seed"])
    if null is None:
        return None
    options = np.array([base.distribution.shape[1] for base, _ in parts])
    before, after = (_each(ev.spread, parts, stage) * options for stage in (0, 1))
    weights = inf.leave_one_out(np.arange(len(parts)))
    number = inf.ratio(lambda w: w @ after / w.sum(-1), lambda w: w @ before / w.sum(-1), weights)
    nothing = "the base has no spread that can be told"
    return _counted(judge("collapse", number, null, chance=1.0, nothing=nothing), parts)


def pooled_frozen(run: _Run, given: Given) -> Verdict:
    """stays-frozen: liquidity that all tasks together gain after SFT, over the base's."""
    parts = several(given)
    before, sft, final = (_each(ev.liquidity, parts, stage) for stage in range(3))
    weights = inf.leave_one_out(np.arange(len(parts)))
    back = inf.estimate(lambda w: ph.ratio(w @ (final - sft), w @ before), weights)
    return _counted(judge("stays-frozen", back), parts)


def pooled_options(run: _Run, given: Given) -> Verdict | None:
    """same-options, on the tasks that have a seed."""
    finals = {task: final for task, (*_, final) in given.items()}
    asked = [task for task, final in finals.items() if task in run.own and can_differ(final)]
    nulls = [claims.options_null(finals[task], run.own[task], **run.how) for task in asked]
    null = inf.pooled(nulls, run.how["seed"])
    if null is None or len(asked) < 2:
        return None
    kept, ceiling = [null.observed for null in nulls], [run.own[task].ceiling for task in asked]
    number = inf.student(ph.ratio(np.array(kept), np.array(ceiling)), low=0)
    return _counted(judge("same-options", number, null), asked)


def pooled_promoted(run: _Run, given: Given) -> Verdict | None:
    """little-promoted, on the tasks whose contexts make two halves."""
    parts = [three for three in several(given) if claims.splits(three[0], 1)]
    if len(parts) < 2:
        return None
    gained = np.array([claims.promoted(sft, final).here for _, sft, final in parts])
    return _counted(judge("little-promoted", inf.student(gained)), parts)


def _each(statistic: Callable, parts: Sequence[Sequence[Evidence]], stage: int) -> Array:
    """One number a task."""
    given = [found[stage] for found in parts]
    return np.array([float(statistic(one, np.ones(len(one.distribution)))) for one in given])


def _counted(verdict: Verdict, parts: Sequence) -> Verdict:
    return replace(verdict, reason=f"{verdict.reason} ({len(parts)} tasks)")


# --- the steps


def _least_on_options(run: _Run, task: str, *three: Evidence) -> float:
    if task not in run.own:
        return 1.0
    mask = run.own[task].mask
    return ev.chosen(int(mask.sum()), len(mask), run.how["permutations"])


class Step(NamedTuple):
    """How a claim is asked of one task, its stages' evidence given, and of all together."""

    phase: str
    judged: Callable[..., Verdict]  # run, task, *evidence
    pooled: Callable[[_Run, Given], Verdict | None]
    best: Callable[..., float] = lambda run, task, *given: 0.0  # the least p that could come out


STEPS = {  # but of the claims about all tasks at once
    "many-distributions": Step(
        LIQUID,
        lambda run, task, base: claims.liquid(base, **run.how),
        pooled_liquid,
        lambda run, task, base: ev.relabelled(base, run.how["permutations"]),
    ),
    "collapse": Step(
        NUCLEATION,
        lambda run, task, base, sft: claims.collapse(base, sft, **run.how),
        pooled_collapse,
        lambda run, task, base, sft: ev.swapped(base, run.how["permutations"]),
    ),
    "stays-frozen": Step(
        SETTLING, lambda run, task, *three: claims.stays_frozen(*three), pooled_frozen
    ),
    "same-options": Step(
        SETTLING,
        lambda run, task, base, sft, final: claims.same_options(final, run.own[task], **run.how),
        pooled_options,
        _least_on_options,
    ),
    "little-promoted": Step(
        SETTLING,
        lambda run, task, base, sft, final: claims.little_promoted(sft, final),
        pooled_promoted,
        lambda run, task, base, *_: 0.0 if claims.splits(base) else 1.0,
    ),
}
