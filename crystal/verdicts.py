"""The claims of the phases, and the one rule that turns a number into a verdict (`crystal.marks` has the marks).

A function here makes the ten lines behind each claim: a statistic over prompts, its interval, its null. `judge` is the
only place where a verdict is decided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from . import inference as inf
from . import phases as ph
from . import world
from .errors import CrystalError
from .inference import ALPHA, Estimate, Null
from .ladders import Ladder
from .marks import MARKS, Mark
from .phases import Array
from .prompts import NARRATORS
from .store import answers
from .tasks import TASKS

QUANTILE = 0.9  # share of the seed's mass that defines its options (DESIGN: ProbMass)


@dataclass(frozen=True)
class Verdict:
    """One claim on one ladder and task. `p` is the larger of the p-values against the mark and against the null."""

    claim: str
    verdict: str  # holds, fails, undecided
    reason: str
    estimate: Estimate
    null: Null | None
    chance: float | None  # what the null makes of the number itself, where that can be said
    p: float
    p_against: float  # small: the number lies on the wrong side of the mark

    @property
    def mark(self) -> Mark:
        return MARKS[self.claim]

    def fields(self) -> dict:
        """What `show.claim` records; a number that does not exist is None."""
        numbers = {"number": self.estimate.value, "low": self.estimate.low, "high": self.estimate.high, "null": self.chance}
        said = {"verdict": self.verdict, "mark": self.mark.mark, "sentence": self.sentence()}
        return said | {name: finite(x) for name, x in numbers.items()}

    def sentence(self) -> str:
        """The number, its interval, its null and the mark, in words."""
        if np.isnan(self.estimate.value):
            return f"{self.mark.number}: {self.reason}."
        show = percent if self.mark.percent else "{:.2g}".format
        text = f"{self.mark.number} is {show(self.estimate.value)} [{show(self.estimate.low)}, {show(self.estimate.high)}]"
        text += f", to be {self.mark.side} {show(self.mark.mark)}"
        if self.null:
            by_chance = "" if finite(self.chance) is None else f" ({show(self.chance)})"
            text += f"; against {self.null.name}{by_chance}, p = {self.null.p:.2g}"
        return f"{text}; {self.reason}."


def percent(share: float) -> str:
    """Whole per cent, but two digits below one."""
    return f"{100 * share:.0f} %" if abs(share) >= 0.01 else f"{100 * share:.2g} %"


def finite(x: float | None) -> float | None:
    return None if x is None or not np.isfinite(x) else float(x)


def judge(claim: str, estimate: Estimate, null: Null | None = None, *, chance: float | None = None,
          nothing: str = "the number does not exist") -> Verdict:
    """THE rule. Holds: the number passes the mark *and* beats its null, both at ALPHA. Fails: it is beyond the mark on
    the wrong side, at ALPHA. Undecided: neither.

    A claim with two parts holds only if both do, so its p-value is the larger of the two: the chance that a claim is
    called holding while either part is false is at most ALPHA. nothing: why there may be no number.
    """
    mark = MARKS[claim]
    p_mark = estimate.p_beyond(mark.mark, mark.side)
    p_null = null.p if null else 0.0
    p_against = estimate.p_beyond(mark.mark, "below" if mark.side == "above" else "above")
    if np.isnan(estimate.value):
        verdict, reason = "undecided", nothing
    elif max(p_mark, p_null) <= ALPHA:
        verdict, reason = "holds", "the mark is passed" + (" and chance excluded" if null else "")
    elif p_against <= ALPHA:
        verdict, reason = "fails", "the whole interval is on the wrong side of the mark"
    elif p_mark <= ALPHA:
        verdict, reason = "undecided", "chance alone may give as much"
    else:
        verdict, reason = "undecided", "the interval reaches across the mark"
    return Verdict(claim, verdict, reason, estimate, null, chance, float(max(p_mark, p_null)), float(p_against))


def adjust(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of one claim on all tasks of a ladder, with Holm's adjusted p-values, both ways.

    What no longer reaches ALPHA becomes undecided.
    """
    adjusted = []
    for v, p, against in zip(verdicts, inf.holm([v.p for v in verdicts]), inf.holm([v.p_against for v in verdicts]), strict=True):
        new = dataclasses.replace(v, p=float(p), p_against=float(against))
        if (v.verdict == "holds" and p > ALPHA) or (v.verdict == "fails" and against > ALPHA):
            reason = f"it {v.verdict} by itself, but not beyond doubt among so many tasks"
            new = dataclasses.replace(new, verdict="undecided", reason=reason)
        adjusted.append(new)
    return adjusted


# --- liquid ----------------------------------------------------------------------------------------------------------


def liquid(base: Array, *, seed: int = 0, resamples: int = 1000) -> list[Verdict]:
    """many-laws: liquidity over log2 K, with the narrators beating the frame-only floor by permutation of their labels."""
    share = inf.estimate(lambda w: ph.liquidity_share(base, w), inf.resample(seed=seed, resamples=resamples))
    floor = ph.frame_floor_bits(base, inf.NARRATOR) / np.log2(base.shape[1])
    return [judge("many-laws", share, inf.narrator_null(base, n=resamples - 1, seed=seed), chance=floor)]


# --- nucleation ------------------------------------------------------------------------------------------------------


def collapse(base: Array, sft: Array, *, seed: int = 0, resamples: int = 1000) -> Verdict:
    """D_sft / D_base, same narrators in both; null: the fall of liquidity when the rungs' names are swapped."""
    ratio = inf.estimate(lambda w: ph.compression(sft, base, w), inf.resample(seed=seed, resamples=resamples))
    both = np.concatenate([base, sft])
    fall = inf.swap_null("the liquidity lost with the rungs' names swapped at random",
                         lambda first, second: ph.liquidity_bits(both, first) - ph.liquidity_bits(both, second),
                         n=resamples - 1, seed=seed)
    return judge("collapse", ratio, fall, chance=1.0,
                 nothing="the base gives every prompt the same answer, so nothing can collapse")


def rivals(base: Array, others: Sequence[Array]) -> Array:
    """Laws a seed has to beat, (1 + others, options): the uniform law, then the other tasks' seeds carried over by rank."""
    mean = base.mean(0)
    return np.stack([np.full(len(mean), 1 / len(mean)), *(inf.carry(law, mean) for law in others)])


def rival_distance(split: inf.Split, laws: Array) -> Array:
    """MSE of the nearer rival to the evaluation half's SFT law: uniform, or the typical (median) other seed."""
    far = ph.distances(laws, split.target)
    return far[..., 0] if len(laws) == 1 else np.minimum(far[..., 0], np.median(far[..., 1:], -1))


def seed_in_base(base: Array, sft: Array, others: Sequence[Array] = (), *, seed: int = 0, resamples: int = 1000,
                 claim: str = "seed-in-base") -> Verdict:
    """The split seed's MSE to SFT's law over its nearer rival's; null: SFT laws with permuted options.

    others: the other tasks' seeds, each over its own options. claim: "seed-shared" where `base` is another ladder's.
    """
    laws = rivals(base, others)

    def relative(w: Array) -> Array:
        split = inf.split_seed(base, sft, w)
        return ph.ratio(ph.mse(split.seed, split.target), rival_distance(split, laws))

    number = inf.estimate(relative, inf.resample(strata=inf.HALF, seed=seed, resamples=resamples))
    permuted = inf.relabellings(base.shape[1], resamples - 1, seed)
    null = inf.relabelled_seed_null(base, sft, permuted)
    chance = float(ph.ratio(null.typical, rival_distance(inf.split_seed(base, sft), laws)))
    return judge(claim, number, null, chance=chance,
                 nothing="SFT's law is the uniform one, which names no seed")


def named_share(base: Array, sft: Array, held: Array, weights: Array) -> Array:
    """Of the base prompts nearest to SFT's law, as many as hold the demonstrator's law: the share (by weight) that do hold it."""
    far = ph.distances(base, ph.mean_law(sft, weights))
    order = np.argsort(far, -1, kind="stable")
    w, mine = np.take_along_axis(weights, order, -1), held[order]
    quota = (w * mine).sum(-1, keepdims=True)
    taken = np.clip(quota - (np.cumsum(w, -1) - w), 0, w)  # weight of each prompt that still fits into the quota
    return ph.ratio((taken * mine).sum(-1), quota[..., 0])


def seed_named(base: Array, sft: Array, laws: Mapping[str, Array], holder: Sequence[str], demonstrator: str, *,
               seed: int = 0, resamples: int = 1000) -> Verdict:
    """Organisms only: does the nearest neighbourhood of SFT's law speak with the demonstrator's law?

    laws: temperament -> ground-truth law of this task; holder: temperament of every narrator. Temperaments whose law
    is the demonstrator's (TV at most 0.05) count as it. Null: temperaments dealt anew to the narrators.
    """
    same = {name for name, law in laws.items() if ph.tv(law, laws[demonstrator]) <= 0.05}
    narrators = np.array([name in same for name in holder])
    weights = inf.resample(strata=np.array(holder)[inf.NARRATOR], seed=seed, resamples=resamples)
    number = inf.estimate(lambda w: named_share(base, sft, narrators[inf.NARRATOR], w), weights)
    dealt = inf.generator(seed, "temperaments").permuted(np.tile(narrators, (resamples - 1, 1)), axis=1)[:, inf.NARRATOR]
    even = np.ones(len(base))
    null = inf.against("temperaments dealt anew to the narrators", number.value,
                       np.array([named_share(base, sft, held, even) for held in dealt]))
    return judge("seed-named", number, null, chance=null.typical)


def nucleation(base: Array, sft: Array, others: Sequence[Array] = (), *, seed: int = 0, resamples: int = 1000) -> list[Verdict]:
    """collapse and seed-in-base; `seed_named` needs the ground truth of an organism."""
    return [collapse(base, sft, seed=seed, resamples=resamples),
            seed_in_base(base, sft, others, seed=seed, resamples=resamples)]


# --- settling --------------------------------------------------------------------------------------------------------


def check_quantile(quantile: float) -> None:
    """Raises: CrystalError unless 0 < quantile < 1, where A is neither empty nor simply every option."""
    if not 0 < quantile < 1:
        raise CrystalError(f"quantile is {quantile}, but no set of options holds that share of a law",
                           mend="choose one between 0 and 1, such as 0.9")


def same_options(base: Array, sft: Array, final: Array, *, quantile: float = QUANTILE, seed: int = 0,
                 resamples: int = 1000) -> Verdict:
    """ProbMass of the final law on the split seed's options, over the seed's own; null: the options relabelled."""
    evaluation = inf.HALF == "evaluation"

    def kept(w: Array) -> Array:
        law, split = ph.mean_law(final, w * evaluation), inf.split_seed(base, sft, w)
        mask = ph.support(split.seed, quantile)
        return ph.ratio(ph.probmass(law, mask), ph.probmass(split.seed, mask))

    number = inf.estimate(kept, inf.resample(strata=inf.HALF, seed=seed, resamples=resamples))
    law, seed_law = final[evaluation].mean(0), inf.split_seed(base, sft).seed
    mask = ph.support(seed_law, quantile)
    draws = ph.probmass(law, mask[inf.relabellings(len(law), resamples - 1, seed)])
    null = inf.against("as many options taken at random", float(ph.probmass(law, mask)), draws)
    return judge("same-options", number, null, chance=null.typical / float(ph.probmass(seed_law, mask)))


def little_promoted(sft: Array, final: Array, *, seed: int = 0, resamples: int = 1000) -> Verdict:
    """Mass that options in the lower half of SFT's ranking gain; no null, for chance can only add to it: the mark is the test."""
    gained = inf.estimate(lambda w: ph.promoted_mass(ph.mean_law(sft, w), ph.mean_law(final, w)),
                          inf.resample(seed=seed, resamples=resamples))
    return judge("little-promoted", gained)


def smaller_move(base: Array, sft: Array, final: Array, *, seed: int = 0, resamples: int = 1000) -> Verdict:
    """MSE ratio, stage; null: base and SFT swapped at random, for if SFT moved nothing there is nothing to be smaller than."""
    laws = (base, sft, final)
    number = inf.estimate(lambda w: ph.mse_ratio_stage(*(ph.mean_law(law, w) for law in laws)),
                          inf.resample(seed=seed, resamples=resamples))
    both = np.concatenate([base, sft])
    move = inf.swap_null("the move from base to SFT with the rungs' names swapped at random",
                         lambda first, second: ph.mse(ph.mean_law(both, first), ph.mean_law(both, second)),
                         n=resamples - 1, seed=seed)
    by_chance = ph.ratio(ph.mse(sft.mean(0), final.mean(0)), move.typical)
    return judge("smaller-move", number, move, chance=float(by_chance), nothing="SFT left the law where it was")


def settling(base: Array, sft: Array, final: Array, *, quantile: float = QUANTILE, seed: int = 0,
             resamples: int = 1000) -> list[Verdict]:
    """same-options, little-promoted, smaller-move."""
    how = {"seed": seed, "resamples": resamples}
    return [same_options(base, sft, final, quantile=quantile, **how), little_promoted(sft, final, **how),
            smaller_move(base, sft, final, **how)]


# --- a whole ladder --------------------------------------------------------------------------------------------------


def seeds(readouts: pd.DataFrame) -> dict[str, Array]:
    """Task -> split seed, for every task of one ladder's read-outs; the rivals of any one of them are the others."""
    pairs = {task: [answers(readouts, rung, task) for rung in ("base", "sft")] for task in readouts["task"].unique()}
    return {task: inf.split_seed(base, sft).seed for task, (base, sft) in pairs.items()}


def of_task(readouts: pd.DataFrame, ladder: Ladder, task: str, *, phases: Sequence[str] = ("liquid", "nucleation", "settling"),
            final: str = "rlvr", quantile: float = QUANTILE, seed: int = 0, resamples: int = 1000) -> list[Verdict]:
    """The verdicts of one ladder on one task, not adjusted for others. readouts: of that ladder, all tasks, for the rivals."""
    base, sft = (answers(readouts, rung, task) for rung in ("base", "sft"))
    how, found = {"seed": seed, "resamples": resamples}, []
    if "liquid" in phases:
        found += liquid(base, **how)
    if "nucleation" in phases:
        found += nucleation(base, sft, [law for name, law in seeds(readouts).items() if name != task], **how)
        if ladder.seed:
            laws = {name: world.law(name, TASKS[task]) for name in world.LAWS}
            holder = [world.temperament_of(n) for n in range(len(NARRATORS))]
            found.append(seed_named(base, sft, laws, holder, ladder.seed, **how))
    if "settling" in phases:
        found += settling(base, sft, answers(readouts, final, task), quantile=quantile, **how)
    return found


def survey(readouts: pd.DataFrame, ladder: Ladder, **how) -> dict[str, list[Verdict]]:
    """Task -> verdicts of one ladder, every claim adjusted over the tasks by Holm's method; `how` as in `of_task`."""
    raw = {task: of_task(readouts, ladder, task, **how) for task in readouts["task"].unique()}
    return adjusted(raw)


def adjusted(raw: Mapping[str, Sequence[Verdict]]) -> dict[str, list[Verdict]]:
    """Task -> verdicts, the same claims in the same order on every task, each claim adjusted over the tasks."""
    columns = [adjust(column) for column in zip(*raw.values(), strict=True)]  # one per claim
    return dict(zip(raw, map(list, zip(*columns, strict=True)), strict=True))


def seed_shared(readouts: pd.DataFrame, other: pd.DataFrame, task: str, *, seed: int = 0, resamples: int = 1000) -> Verdict:
    """The seed chosen in the base of `other`, scored on the SFT of `readouts`: both hold all tasks of one ladder.

    Rivals are the uniform law and the seeds that the other base gives to other tasks.
    """
    pairs = {name: (answers(other, "base", name), answers(readouts, "sft", name)) for name in readouts["task"].unique()}
    foreign = [inf.split_seed(*pair).seed for name, pair in pairs.items() if name != task]
    return seed_in_base(*pairs[task], foreign, claim="seed-shared", seed=seed, resamples=resamples)


def sharing(readouts: pd.DataFrame, other: pd.DataFrame, **how) -> dict[str, list[Verdict]]:
    """Task -> [seed-shared], adjusted over tasks; `how` as in `seed_shared`."""
    return adjusted({task: [seed_shared(readouts, other, task, **how)] for task in readouts["task"].unique()})
