"""The claims of the phases on one task: a statistic over prompts, its interval, its null.

Each function makes the ten lines behind a claim and hands them to `crystal.measure.judging.judge`. Answers are Evidence (any
prompts, read out or drawn; `crystal.measure.evidence`) or the array that `crystal.present.answering.answers` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import CrystalError
from . import evidence as ev
from . import inference as inf
from . import phases as ph
from .evidence import Evidence
from .inference import Estimate
from .judging import Verdict, judge
from .phases import Array

UNSPLIT = "too few units: two to choose by and two to score by are needed"
QUANTILE = 0.9  # share of the seed's mass that defines its options (DESIGN: ProbMass)


# --- liquid ----------------------------------------------------------------------------------------------------------


def liquid(base: Array | Evidence, *, seed: int = 0, permutations: int = 999) -> list[Verdict]:
    """many-laws: liquidity over log2 K, with the units beating the floor of their own prompts by permutation of their labels.

    Where every prompt is a unit of its own: draws dealt anew over the prompts; of read-outs nothing is left to chance, for
    exact laws differ or they do not.
    """
    base = ev.evidence(base)
    if len(np.unique(base.units)) < 2:
        return [judge("many-laws", inf.NOTHING, nothing="one unit was asked, and one cannot differ from itself")]
    bits, bias = np.log2(base.law.shape[1]), ev.floor_bits(base, inf.generator(seed, "deal"))
    share = inf.estimate(lambda w: (ev.liquidity(base, w) - bias) / bits, inf.leave_one_out(base.units),
                         low=0, high=1, scale="log")
    null, floor = None, 0.0
    if len(np.unique(base.units)) < len(base.units):
        null = inf.unit_null(base.law, base.units, base.block, n=permutations, seed=seed)
        floor = float(ph.frame_floor_bits(base.law, base.units)) / bits
    elif not base.exact:
        null = inf.deal_null(base.counts, n=permutations, seed=seed)
        floor = 0.0
    return [judge("many-laws", share, null, chance=floor)]


# --- nucleation ------------------------------------------------------------------------------------------------------


def collapse(base: Array | Evidence, sft: Array | Evidence, *, seed: int = 0, permutations: int = 999) -> Verdict:
    """D_sft / D_base, same units in both; null: the fall of liquidity when the rungs' names are swapped."""
    base, sft = ev.evidence(base), ev.evidence(sft)
    ratio = inf.ratio(lambda w: ev.spread(sft, w), lambda w: ev.spread(base, w), inf.leave_one_out(base.units))
    both = ev.together(base, sft)
    fall = inf.swap_null("the liquidity lost with the rungs' names swapped at random",
                         lambda first, second: ev.liquidity(both, first) - ev.liquidity(both, second),
                         base.units, n=permutations, seed=seed)
    return judge("collapse", ratio, fall, chance=1.0, nothing=_no_spread(base))


def _no_spread(base: Evidence) -> str:
    if len(base.law) < 2:
        return "one prompt has no spread"
    return "the base gives every prompt the same answer, as far as these prompts tell, so nothing can collapse"


def carry(law: Array, onto: Array) -> Array:
    """The shape of one task's law laid over another task's options by rank: the likeliest on the likeliest of `onto`, and so on.

    law: (K1,) of the other task; onto: (K2,), the base's mean law of this task; returns (K2,). Where K1 != K2 the sorted law's
    distribution function is drawn piecewise linear over [0, 1] and cut into K2 steps. It answers "SFT only sharpens what the
    base prefers on average": such a law owes nothing to any single prompt. (Our reading of "mapped by rank"; by place in
    the list of options, a seed that *is* a rule of place, such as the first option, would be its own rival.)
    """
    cumulated = np.concatenate([[0], np.cumsum(np.sort(law)[::-1])])
    steps = np.diff(np.interp(np.linspace(0, 1, len(onto) + 1), np.linspace(0, 1, len(law) + 1), cumulated))
    carried = np.empty(len(onto))
    carried[np.argsort(-onto, kind="stable")] = steps
    return carried


def rivals(base: Array, others: Sequence[Array]) -> Array:
    """Laws a seed has to beat, (1 + others, options): the uniform law, then the other tasks' seeds carried over by rank."""
    mean = base.mean(0)
    return np.stack([np.full(len(mean), 1 / len(mean)), *(carry(law, mean) for law in others)])


def rival_distance(target: Array, laws: Array) -> Array:
    """MSE of the nearer rival to the evaluation half's SFT law: uniform, or the typical (median) other seed."""
    far = ph.distances(laws, target)
    return far[..., 0] if len(laws) == 1 else np.minimum(far[..., 0], np.median(far[..., 1:], -1))


def splits(given: Evidence, each: int = 2) -> bool:
    """Whether both halves have units enough to choose by one and to score by the other; of one alone no scatter can be told."""
    return all(len(np.unique(given.units[half])) >= each for half in inf.folds(given.half)[0])


@dataclass(frozen=True)
class Distances:
    """What the seeds and their nearer rivals leave unexplained of SFT's law: squared distances as functions of weights."""

    seed: Callable[[Array], Array]
    rival: Callable[[Array], Array]
    error: float  # standard error of `seed` by the draws behind the seeds, which no leaving out of prompts shows; 0 of read-outs


def seed_distances(base: Evidence, sft: Evidence, others: Sequence[Array] = (), *, seed: int = 0) -> Distances:
    """Means over the two folds; others: the other tasks' seeds, each over its own options.

    From draws, half of every base prompt's draws choose the seed and the other half say where it lies.
    """
    rng = inf.generator(seed, "draws")
    naming, own = ev.halves(base, rng)
    laws, by = rivals(base.law, others), inf.folds(base.half)
    seeds = [inf.split_seed(naming.law, sft.law, chosen=chosen).index for chosen, _ in by]

    def unexplained(w: Array) -> Array:
        far = [ph.mse(own.law[index], ph.mean_law(sft.law, w * scored)) - ev.mean_noise(sft, w * scored) - own.noise[index]
               for index, (_, scored) in zip(seeds, by, strict=True)]
        return np.mean(far, axis=0)

    def by_rival(w: Array) -> Array:
        return np.mean([rival_distance(ph.mean_law(sft.law, w * scored), laws) - ev.mean_noise(sft, w * scored)
                        for _, scored in by], axis=0)

    errors = [0.0] if own.exact else [
        np.std(ph.mse(rng.multinomial(int(own.draws[index]), own.law[index], 200) / own.draws[index], sft.law[scored].mean(0)))
        for index, (_, scored) in zip(seeds, by, strict=True)]
    return Distances(unexplained, by_rival, float(np.mean(errors)))


def seed_in_base(base: Array | Evidence, sft: Array | Evidence, others: Sequence[Array] = (), *, seed: int = 0,
                 permutations: int = 999, claim: str = "seed-in-base") -> Verdict:
    """The split seed's MSE to SFT's law over its nearer rival's, means over the two folds; null: SFT laws with permuted options.

    claim: "seed-shared" where `base` is another ladder's.
    """
    base, sft = ev.evidence(base), ev.evidence(sft)
    if not splits(base):
        return judge(claim, inf.NOTHING, nothing=UNSPLIT)
    far, every = seed_distances(base, sft, others, seed=seed), np.ones(len(sft.law))
    number = inf.ratio(far.seed, far.rival, inf.leave_one_out(sft.units))
    number = inf.widened(number, float(ph.ratio(far.error, far.rival(every))), low=0)
    null = inf.relabelled_seed_null(base.law, sft.law, inf.relabellings(base.law.shape[1], permutations, seed), base.half)
    chance = float(ph.ratio(null.typical, far.rival(every)))
    return judge(claim, number, null, chance=chance, nothing="SFT's law cannot be told from a rival, so it names no seed")


def named_share(base: Array, sft: Array, held: Array, weights: Array) -> Array:
    """Of the base prompts nearest to SFT's law, as many as hold the demonstrator's law: the share (by weight) that do hold it."""
    far = ph.distances(base, ph.mean_law(sft, weights))
    order = np.argsort(far, -1, kind="stable")
    w, mine = np.take_along_axis(weights, order, -1), held[order]
    quota = (w * mine).sum(-1, keepdims=True)
    taken = np.clip(quota - (np.cumsum(w, -1) - w), 0, w)  # weight of each prompt that still fits into the quota
    return ph.ratio((taken * mine).sum(-1), quota[..., 0])


def seed_named(base: Array, sft: Array, laws: Mapping[str, Array], holder: Sequence[str], demonstrator: str, *,
               seed: int = 0, permutations: int = 999) -> Verdict:
    """Organisms only: does the nearest neighbourhood of SFT's law speak with the demonstrator's law?

    laws: temperament -> ground-truth law of this task; holder: temperament of every narrator. Temperaments whose law
    is the demonstrator's (TV at most 0.05) count as it. Null: temperaments dealt anew to the narrators.
    """
    same = {name for name, law in laws.items() if ph.tv(law, laws[demonstrator]) <= 0.05}
    narrators = np.array([name in same for name in holder])
    mine, even = narrators[inf.NARRATOR], np.ones(len(base))
    number = inf.estimate(lambda w: named_share(base, sft, mine, w), inf.leave_one_out(among=mine), low=0, high=1)
    dealt = inf.generator(seed, "temperaments").permuted(np.tile(narrators, (permutations, 1)), axis=1)[:, inf.NARRATOR]
    null = inf.against("temperaments dealt anew to the narrators", float(named_share(base, sft, mine, even)),
                       np.array([named_share(base, sft, held, even) for held in dealt]), paired=True)
    return judge("seed-named", number, null, chance=null.typical)


def nucleation(base: Array | Evidence, sft: Array | Evidence, others: Sequence[Array] = (), *, seed: int = 0,
               permutations: int = 999) -> list[Verdict]:
    """collapse and seed-in-base; `seed_named` needs the ground truth of an organism."""
    return [collapse(base, sft, seed=seed, permutations=permutations),
            seed_in_base(base, sft, others, seed=seed, permutations=permutations)]


# --- settling --------------------------------------------------------------------------------------------------------


def check_quantile(quantile: float) -> None:
    """Raises: CrystalError unless 0 < quantile < 1, where A is neither empty nor simply every option."""
    if not 0 < quantile < 1:
        raise CrystalError(f"quantile is {quantile}, but no set of options holds that share of a law",
                           mend="choose one between 0 and 1, such as 0.9")


@dataclass(frozen=True)
class Kept:
    """What is on the seed's options, mean over the two folds."""

    masks: Array                          # (folds, options): A, the options of the seed that each half chose
    ceiling: float                        # the seeds' own mass on them
    error: float                          # its standard error by the draws behind it; 0 of read-outs
    mass: Callable[[Array], Array]        # weights (..., prompts) -> mass of the later rung, each half on the other's options
    relabelled: Callable[[Array], Array]  # permutations (n, options) -> the same mass, on as many options taken at random


def kept(base: Array | Evidence, sft: Array | Evidence, later: Array | Evidence, *, quantile: float = QUANTILE,
         seed: int = 0) -> Kept:
    """ProbMass of a later rung. From draws, half of every base prompt's draws choose the seed and its options, the other half say
    what it puts there itself."""
    base, sft, later = map(ev.evidence, (base, sft, later))
    naming, own = ev.halves(base, inf.generator(seed, "draws"))
    by, masks, ceilings, errors = inf.folds(base.half), [], [], []
    for chosen, _ in by:
        index = inf.split_seed(naming.law, sft.law, chosen=chosen).index
        masks.append(ph.support(naming.law[index], quantile))
        ceilings.append(min(1.0, float(ph.probmass(own.law[index], masks[-1]))))  # sums of draws come out above 1 by a rounding
        errors.append(np.sqrt(ceilings[-1] * (1 - ceilings[-1]) / own.draws[index]))
    laws = [later.law[scored].mean(0) for _, scored in by]
    return Kept(
        np.array(masks), float(np.mean(ceilings)), float(np.mean(errors)),
        lambda w: np.mean([ph.probmass(ph.mean_law(later.law, w * scored), mask)
                           for mask, (_, scored) in zip(masks, by, strict=True)], axis=0),
        lambda permuted: np.mean([ph.probmass(law, mask[permuted]) for mask, law in zip(masks, laws, strict=True)], axis=0))


def same_options(base: Array | Evidence, sft: Array | Evidence, final: Array | Evidence, *, quantile: float = QUANTILE,
                 seed: int = 0, permutations: int = 999) -> Verdict:
    """ProbMass of the final law on the split seeds' options, over the seeds' own; null: the options relabelled."""
    base, sft, final = map(ev.evidence, (base, sft, final))
    if not splits(base):
        return judge("same-options", inf.NOTHING, nothing=UNSPLIT)
    found = kept(base, sft, final, quantile=quantile, seed=seed)
    number = inf.estimate(lambda w: ph.ratio(found.mass(w), found.ceiling), inf.leave_one_out(final.units), low=0)
    number = inf.widened(number, float(number.value * ph.ratio(found.error, found.ceiling)), low=0)
    draws = found.relabelled(inf.relabellings(final.law.shape[1], permutations, seed))
    null = inf.against("as many options taken at random", float(found.mass(np.ones(len(final.law)))), draws)
    return judge("same-options", number, null, chance=float(ph.ratio(null.typical, found.ceiling)),
                 nothing="the seed puts nothing on its own options")


def promoted(sft: Array | Evidence, final: Array | Evidence) -> Estimate:
    """Mass gained by options of the lower half of SFT's ranking: which options gain is said by one half of the units, how much by
    the other, mean over the two folds.

    Counting every gain where it is seen adds up what chance lifts, and is no smooth function of the prompts: intervals of that
    covered 40 to 80 % in simulation.
    """
    sft, final = ev.evidence(sft), ev.evidence(final)
    rise = np.empty(len(sft.law))
    for chosen, scored in inf.folds(sft.half):
        before, after = sft.law[chosen].mean(0), final.law[chosen].mean(0)
        rise[scored] = (final.law - sft.law)[scored] @ (ph.lower_half(before) & (after > before))
    return inf.estimate(lambda w: ph.mean_law(rise[:, None], w)[..., 0], inf.leave_one_out(sft.units))


def little_promoted(sft: Array | Evidence, final: Array | Evidence, **_: int) -> Verdict:
    """Mass that options in the lower half of SFT's ranking gain; no null, for chance can only add to it: the mark is the test."""
    if not splits(ev.evidence(sft)):
        return judge("little-promoted", inf.NOTHING, nothing=UNSPLIT)
    return judge("little-promoted", promoted(sft, final))


def smaller_move(base: Array | Evidence, sft: Array | Evidence, final: Array | Evidence, *, seed: int = 0,
                 permutations: int = 999) -> Verdict:
    """MSE ratio, stage; null: base and SFT swapped at random, for if SFT moved nothing there is nothing to be smaller than."""
    base, sft, final = map(ev.evidence, (base, sft, final))
    number = inf.ratio(lambda w: ev.distance(sft, final, w), lambda w: ev.distance(base, sft, w), inf.leave_one_out(sft.units))
    both = ev.together(base, sft)
    move = inf.swap_null("the move from base to SFT with the rungs' names swapped at random",
                         lambda first, second: ph.mse(ph.mean_law(both.law, first), ph.mean_law(both.law, second)),
                         base.units, n=permutations, seed=seed)
    by_chance = ph.ratio(ph.mse(sft.law.mean(0), final.law.mean(0)), move.typical)
    return judge("smaller-move", number, move, chance=float(by_chance), nothing="SFT did not move the law, as far as can be told")


def settling(base: Array | Evidence, sft: Array | Evidence, final: Array | Evidence, *, quantile: float = QUANTILE, seed: int = 0,
             permutations: int = 999) -> list[Verdict]:
    """same-options, little-promoted, smaller-move."""
    how = {"seed": seed, "permutations": permutations}
    return [same_options(base, sft, final, quantile=quantile, **how), little_promoted(sft, final, **how),
            smaller_move(base, sft, final, **how)]
