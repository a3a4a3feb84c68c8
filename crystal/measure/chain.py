"""All claims of one checkpoint series, in order: answered, liquid, collapsed, one seed, frozen.

What a claim rests on comes first, and what is not reached is said, not tested: a series that has
not collapsed has no seed to be asked for. What no data of the design could make hold is not
testable (`crystal.measure.testable`). Neither is a member of the family that Holm's method adjusts.

Per task: many-laws, collapse, stays-frozen, same-options, little-promoted. Over all tasks, each a
unit: the same, and one-seed and unmixed, which are claims about all tasks at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from . import claims, joint, pooled, testable
from .adjusting import adjust
from .answered import NOT_MEASURABLE, Count, no_verdicts
from .chance import check_permutations, generator
from .claims import QUANTILE
from .evidence import Evidence
from .inference import ALPHA, NOTHING, Null
from .joint import Account, Moves
from .judging import Verdict

LIQUID, NUCLEATION, SETTLING = "liquid", "nucleation", "settling"
CLAIMS = {
    LIQUID: ("many-laws",),
    NUCLEATION: ("collapse", "one-seed", "unmixed"),
    SETTLING: ("stays-frozen", "same-options", "little-promoted"),
}
RESTS_ON = {
    "collapse": "many-laws",
    "one-seed": "collapse",
    "unmixed": "one-seed",
    "stays-frozen": "collapse",
    "same-options": "one-seed",
    "little-promoted": "collapse",
}
OVER_TASKS = ("one-seed", "unmixed")  # claims about all tasks at once
NOT_TESTABLE, NOT_REACHED = "not-testable", "not-reached"
TESTED = ("holds", "fails", "undecided")
VERDICTS = (*TESTED, NOT_TESTABLE, NOT_REACHED, NOT_MEASURABLE)
POOLED = "all tasks"

Parts = Mapping[str, Sequence[Evidence] | Count]  # phase -> what it compares, or why it cannot


@dataclass(frozen=True)
class Survey:
    """One series. verdicts: task -> verdicts, adjusted over tasks; those over all tasks under
    POOLED if there are two. account: what one-seed rests on; None if that cannot be asked.
    """

    verdicts: dict[str, list[Verdict]]
    account: Account | None

    @property
    def seeds(self) -> dict[str, str]:
        """Task -> context whose answer in the base is the seed, named by tasks of other kinds."""
        return self.account.seeds if self.account else {}

    def of(self, task: str) -> dict[str, Verdict]:
        """Claim -> verdict of one task, and of all for the claims about all."""
        whole = [v for v in self.verdicts.get(POOLED, []) if v.claim in OVER_TASKS]
        return {v.claim: v for v in (*whole, *self.verdicts.get(task, []))}


def check(*, quantile: float, seed: int, permutations: int) -> None:
    """Raises: CrystalError for a quantile, number of permutations or seed that is none."""
    claims.check_quantile(quantile)
    check_permutations(permutations)
    generator(seed, "check")


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
    options: of every task, by which tasks are of one kind (`joint.kinds`).

    tick: called once a task and phase. Raises: CrystalError for a quantile, seed or number of
    permutations that is none.
    """
    check(quantile=quantile, seed=seed, permutations=permutations)
    how = {"seed": seed, "permutations": permutations}
    found = _Found({task: {} for task in every}, {})
    bases, pairs, threes = (_there(every, phase) for phase in CLAIMS)
    _ask(
        found,
        "many-laws",
        bases,
        lambda task, base: claims.liquid(base, **how),
        lambda task, base: testable.many_laws(base, permutations),
    )
    if pooled.several(bases):
        _pool(found, "many-laws", pooled.liquid(bases, found.nulls("many-laws"), seed))
    for _ in every:
        tick()
    _ask(
        found,
        "collapse",
        pairs,
        lambda task, base, sft: claims.collapse(base, sft, **how),
        lambda task, base, sft: testable.swapped(base, permutations),
    )
    if pooled.several(pairs):
        _pool(found, "collapse", pooled.collapse(pairs, found.nulls("collapse"), seed))
    moves = joint.moves(
        {task: (base, sft) for task, (base, sft) in pairs.items()}, joint.kinds(options or {})
    )
    for v in _joint(found, moves, pairs, how) if _asked(every, NUCLEATION) else ():
        found.pooled[v.claim] = v
    for _ in every:
        tick()
    account = joint.account(moves) if moves else None
    seeds = account.seeds if account else {}
    own = {
        task: claims.seed_of(base, seeds[task], quantile=quantile, seed=seed)
        for task, (base, *_) in threes.items()
        if task in seeds and seeds[task] in base.units.astype(str)
    }
    if _asked(every, SETTLING):
        _settle(found, threes, own, how)
    for _ in every:
        tick()
    for task, parts in every.items():
        for phase, claimed in CLAIMS.items():
            if isinstance(count := parts.get(phase), Count):
                alone = [claim for claim in claimed if claim not in OVER_TASKS]
                found.tasks[task] |= {v.claim: v for v in no_verdicts(alone, count)}
    order = {claim: n for n, claim in enumerate(sum(CLAIMS.values(), ()))}
    verdicts = {
        task: sorted(mine.values(), key=lambda v: order[v.claim])
        for task, mine in found.tasks.items()
    }
    if found.pooled:
        verdicts[POOLED] = sorted(found.pooled.values(), key=lambda v: order[v.claim])
    return Survey(verdicts, account)


# --- order and family --------------------------------------------------------------------------


@dataclass
class _Found:
    """What was judged so far: task -> claim -> verdict, and of all tasks together."""

    tasks: dict[str, dict[str, Verdict]]
    pooled: dict[str, Verdict]

    def nulls(self, claim: str) -> dict[str, Null]:
        """Task -> null of a claim, where it was tested."""
        verdicts = {task: mine.get(claim) for task, mine in self.tasks.items()}
        return {task: v.null for task, v in verdicts.items() if v and v.null}

    def earlier(self, claim: str, task: str) -> Verdict | None:
        """The verdict that `claim` rests on, where it stops it."""
        name = RESTS_ON.get(claim)
        mine = self.pooled if task == POOLED or name in OVER_TASKS else self.tasks[task]
        before = mine.get(name) if name else None
        if before is None or before.verdict == "holds":
            return None
        # where wording was not tried, what differs is not known, but it may still collapse
        passes = name == "many-laws" and before.verdict == NOT_TESTABLE
        return None if passes else before


def _ask(
    found: _Found,
    claim: str,
    given: Mapping[str, Sequence[Evidence]],
    judged: Callable[..., Verdict],
    best: Callable[..., float] | None = None,
) -> None:
    """One claim task by task: first whether it is reached, then whether it can hold, then the test.

    best: the least p-value that could come out.
    """
    reached = {}
    for task, parts in given.items():
        before = found.earlier(claim, task) or _on_the_way(found, claim, task)
        if before:
            found.tasks[task][claim] = not_reached(claim, before)
        else:
            reached[task] = parts
    least = {task: best(task, *parts) if best else 0.0 for task, parts in reached.items()}
    alone = {
        task: 1.0 if len(np.unique(parts[0].units)) < 2 else p
        for (task, p), parts in zip(least.items(), reached.values(), strict=True)
    }
    members = testable.family(alone)
    for task in reached:
        if task not in members:
            found.tasks[task][claim] = not_testable(claim, alone[task], len(members))
    raw = {task: judged(task, *reached[task]) for task in reached if task in members}
    for task, verdict in zip(raw, adjust(list(raw.values())), strict=True):
        found.tasks[task][claim] = verdict


def _on_the_way(found: _Found, claim: str, task: str) -> Verdict | None:
    """A claim about this task that rests on one about all tasks still rests on this task's own."""
    name = RESTS_ON.get(claim)
    return found.earlier(name, task) if name in OVER_TASKS and task != POOLED else None


def _pool(found: _Found, claim: str, verdict: Verdict | None) -> None:
    """The verdict over all tasks, if it is reached; None: it cannot be tested."""
    before = found.earlier(claim, POOLED)
    found.pooled[claim] = (
        not_reached(claim, before) if before else verdict or not_testable(claim, 1.0)
    )


def not_reached(claim: str, before: Verdict) -> Verdict:
    """No test, for what the claim rests on does not hold."""
    how = {
        "holds": "holds",
        "fails": "fails",
        "undecided": "is undecided",
        NOT_TESTABLE: "is not testable",
        NOT_REACHED: "is not reached",
    }
    said = how.get(before.verdict, "is not measurable")
    return Verdict(
        claim,
        NOT_REACHED,
        f"not reached, for {before.claim} {said} here",
        NOTHING,
        None,
        None,
        1.0,
        1.0,
    )


def not_testable(claim: str, best: float, others: int = 0) -> Verdict:
    """No test, for no data of this design could make the claim hold."""
    said = f"not testable here: at best p = {best:.2g}"
    if best <= ALPHA:
        said += f", too much beside {others} others"
    return Verdict(claim, NOT_TESTABLE, said, NOTHING, None, None, 1.0, 1.0)


def _asked(every: Mapping[str, Parts], phase: str) -> bool:
    return any(phase in parts for parts in every.values())


def _there(every: Mapping[str, Parts], phase: str) -> dict[str, Sequence[Evidence]]:
    """Task -> what a phase compares, where it can be measured."""
    found = {task: parts.get(phase) for task, parts in every.items()}
    return {task: given for task, given in found.items() if given and not isinstance(given, Count)}


# --- one seed, and what comes after it ---------------------------------------------------------


def _joint(found: _Found, moves: Moves | None, pairs: Mapping, how: dict) -> list[Verdict]:
    """one-seed and unmixed."""
    if before := found.earlier("one-seed", POOLED):
        return [not_reached(claim, before) for claim in OVER_TASKS] if pairs else []
    size = (moves.kinds.max() + 1, len(moves.contexts)) if moves else (1, 1)
    if (best := testable.aligned(*size, how["permutations"])) > ALPHA:
        return [_no_joint(claim, moves, best) for claim in OVER_TASKS]
    one, unmixed = (
        dataclasses.replace(v, reason=f"{v.reason} ({len(moves.tasks)} tasks of {size[0]} kinds)")
        for v in claims.one_seed(moves, **how)
    )
    if one.verdict != "holds":
        return [one, not_reached("unmixed", one)]
    _, apart = moves.grouped
    if apart <= joint.APART:
        why = f"not testable here: the contexts form no groups (mean silhouette {apart:.2f})"
        if size[1] > joint.MOST_CONTEXTS:
            why = f"not testable here: {size[1]} contexts are too many to group"
        unmixed = dataclasses.replace(not_testable("unmixed", 1.0), reason=why)
    return [one, unmixed]


def _no_joint(claim: str, moves: Moves | None, best: float) -> Verdict:
    if moves:
        return not_testable(claim, best)
    few = (
        f"not testable here: tasks of {joint.FEWEST_KINDS} kinds that can move and "
        f"{joint.FEWEST_CONTEXTS} contexts that half of them share are needed"
    )
    return dataclasses.replace(not_testable(claim, 1.0), reason=few)


def _settle(found: _Found, threes: Mapping, own: Mapping[str, claims.Seed], how: dict) -> None:
    """The claims about the last stage."""
    _ask(found, "stays-frozen", threes, lambda task, *three: claims.stays_frozen(*three))
    _ask(
        found,
        "same-options",
        threes,
        lambda task, base, sft, final: claims.same_options(final, own[task], **how),
        lambda task, *three: (
            testable.chosen(int(own[task].mask.sum()), len(own[task].mask), how["permutations"])
            if task in own
            else 1.0
        ),
    )
    _ask(
        found,
        "little-promoted",
        threes,
        lambda task, base, sft, final: claims.little_promoted(sft, final),
        lambda task, base, *_: 0.0 if claims.splits(base) else 1.0,
    )
    if pooled.several(threes):
        _pool(found, "stays-frozen", pooled.stays_frozen(threes))
        _pool(found, "same-options", pooled.same_options(threes, own, **how))
        _pool(found, "little-promoted", pooled.little_promoted(threes))
