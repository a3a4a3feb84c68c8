"""The claims of the phases: a statistic over prompts, its interval, its null.

Each function makes the ten lines behind a claim and hands them to `crystal.measure.judging.judge`.
Answers are Evidence (any prompts, read out or drawn; `crystal.measure.evidence`) or the array that
`crystal.present.answering.answers` gives. `crystal.measure.chain` says in which order they are
asked, and which can be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import CrystalError
from . import evidence as ev
from . import inference as inf
from . import joint
from . import phases as ph
from .evidence import Evidence
from .inference import Estimate
from .joint import Moves
from .judging import Verdict, judge
from .phases import Array

QUANTILE = 0.9  # share of the seed's mass that defines its options (DESIGN: ProbMass)


# --- liquid ------------------------------------------------------------------------------------


def liquid(base: Array | Evidence, *, seed: int = 0, permutations: int = 999) -> Verdict:
    """many-laws: liquidity over log2 K, and the clusters of prompts (contexts) beating the floor
    among their own prompts (wordings), by permutation of the clusters' labels.
    """
    base = ev.evidence(base)
    bits = np.log2(base.law.shape[1])
    bias = ev.floor_bits(base, inf.generator(seed, "deal"))
    share = inf.estimate(
        lambda w: (ev.liquidity(base, w) - bias) / bits, base.weights, low=0, high=1, scale="log"
    )
    null = inf.unit_null(base.law, base.units, base.block, n=permutations, seed=seed)
    floor = float(ph.frame_floor_bits(base.law, base.units)) / bits
    return judge("many-laws", share, null, chance=floor)


# --- nucleation --------------------------------------------------------------------------------


def collapse(
    base: Array | Evidence, sft: Array | Evidence, *, seed: int = 0, permutations: int = 999
) -> Verdict:
    """D_sft / D_base, the same prompts in both; null: the fall of liquidity when the checkpoints'
    names are swapped.
    """
    base, sft = ev.evidence(base), ev.evidence(sft)
    number = inf.ratio(lambda w: ev.spread(sft, w), lambda w: ev.spread(base, w), base.weights)
    both = ev.together(base, sft)
    fall = inf.swap_null(
        "the liquidity lost with the rungs' names swapped at random",
        lambda first, second: ev.liquidity(both, first) - ev.liquidity(both, second),
        base.units,
        n=permutations,
        seed=seed,
    )
    nothing = (
        "the base gives every prompt the same answer, as far as these prompts tell, so "
        "nothing can collapse"
    )
    return judge("collapse", number, fall, chance=1.0, nothing=nothing)


def one_seed(found: Moves, *, seed: int = 0, permutations: int = 999) -> list[Verdict]:
    """one-seed and unmixed, of all tasks together (`crystal.measure.joint`)."""
    null = joint.joint_null(found, permutations=permutations, seed=seed)
    return [
        judge(
            "one-seed",
            joint.progress(found),
            null,
            chance=0.0,
            nothing="SFT moved no task, as far as can be told",
        ),
        judge("unmixed", joint.largest_share(found)),
    ]


# --- settling ----------------------------------------------------------------------------------


def stays_frozen(base: Array | Evidence, sft: Array | Evidence, final: Array | Evidence) -> Verdict:
    """The liquidity that the last stage gives back, as a share of the base's; no null, for a
    threshold above nothing is the test.
    """
    base, sft, final = map(ev.evidence, (base, sft, final))
    back = inf.estimate(
        lambda w: ph.ratio(ev.liquidity(final, w) - ev.liquidity(sft, w), ev.liquidity(base, w)),
        base.weights,
    )
    return judge("stays-frozen", back, nothing="the base has no liquidity to give back")


def check_quantile(quantile: float) -> None:
    """Raises: CrystalError unless 0 < quantile < 1, where A is neither empty nor every option."""
    if not 0 < quantile < 1:
        raise CrystalError(
            f"quantile is {quantile}, but no set of options holds that share of a law",
            mend="choose one between 0 and 1, such as 0.9",
        )


@dataclass(frozen=True)
class Seed:
    """A seed: what the base answers to one context. Its options A hold QUANTILE of its mass."""

    law: Array  # (options,)
    mask: Array  # (options,) bool: A
    ceiling: float  # the seed's own mass on A
    error: float  # its standard error by the draws behind it; 0 of read-outs


def seed_of(
    base: Array | Evidence, context: object, *, quantile: float = QUANTILE, seed: int = 0
) -> Seed:
    """The seed that a context (a cluster of the base's prompts) holds.

    From draws, half of the context's draws choose A and the other half say what lies on it.
    """
    base = ev.evidence(base)
    mine = base.units.astype(str) == str(context)
    naming, own = ev.halves(base, inf.generator(seed, "draws"))
    mask = ph.support(naming.law[mine].mean(0), quantile)
    law = own.law[mine].mean(0)
    ceiling = min(1.0, float(ph.probmass(law, mask)))  # sums of draws exceed 1 by a rounding
    error = np.sqrt(ceiling * (1 - ceiling) / own.draws[mine].sum())
    return Seed(law, mask, ceiling, float(error))


def kept_mass(later: Array | Evidence, seed: Seed) -> Callable[[Array], Array]:
    """ProbMass: weights (..., prompts) -> mass of a later checkpoint's mean law on the seed's A."""
    later = ev.evidence(later)
    return lambda w: ph.probmass(ph.mean_law(later.law, w), seed.mask)


def same_options(
    final: Array | Evidence, own: Seed, *, seed: int = 0, permutations: int = 999
) -> Verdict:
    """ProbMass of the last stage on the seed's options, over the seed's own mass there; null: as
    many options taken at random.
    """
    final = ev.evidence(final)
    mass = kept_mass(final, own)
    number = inf.estimate(lambda w: ph.ratio(mass(w), own.ceiling), final.weights, low=0)
    number = inf.widened(number, float(number.value * ph.ratio(own.error, own.ceiling)), low=0)
    relabelled = inf.relabellings(final.law.shape[1], permutations, seed)
    draws = ph.probmass(final.law.mean(0), own.mask[relabelled])
    null = inf.against(
        "as many options taken at random", float(mass(np.ones(len(final.law)))), draws
    )
    return judge(
        "same-options",
        number,
        null,
        chance=float(ph.ratio(null.typical, own.ceiling)),
        nothing="the seed puts nothing on its own options",
    )


def splits(given: Evidence, each: int = 2) -> bool:
    """Whether both halves have clusters enough to choose by one and to score by the other."""
    return all(len(np.unique(given.units[half])) >= each for half in inf.folds(given.half)[0])


def promoted(sft: Array | Evidence, final: Array | Evidence) -> Estimate:
    """Mass gained by options of the lower half of SFT's ranking: which options gain is said by one
    half of the clusters, how much by the other, mean over both ways.

    Counting every gain where it is seen adds up what chance lifts, and is no smooth function of the
    prompts: intervals of that covered 40 to 80 % in simulation.
    """
    sft, final = ev.evidence(sft), ev.evidence(final)
    rise = np.empty(len(sft.law))
    for chosen, scored in inf.folds(sft.half):
        before, after = sft.law[chosen].mean(0), final.law[chosen].mean(0)
        rise[scored] = (final.law - sft.law)[scored] @ (ph.lower_half(before) & (after > before))
    return inf.estimate(lambda w: ph.mean_law(rise[:, None], w)[..., 0], sft.weights)


def little_promoted(sft: Array | Evidence, final: Array | Evidence) -> Verdict:
    """Mass that options in the lower half of SFT's ranking gain; no null, for chance can only add
    to it: the threshold is the test.
    """
    return judge("little-promoted", promoted(sft, final))
