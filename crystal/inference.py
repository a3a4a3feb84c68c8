"""Intervals, nulls and floors for the quantities of `crystal.phases`.

A read-out is exact, so nothing here is about sampling answers. What is random is which narrators were asked: another
twenty could have been written. Hence one unit everywhere, the *narrator*: the five frames of a narrator share a
speaker and are no independent evidence, so they are resampled, swapped and relabelled together. Resampling the 100
prompts one by one would make every interval about half as wide as it should be.

All randomness is counter-based (Philox), keyed by the seed handed in and by what it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .errors import CrystalError
from .phases import TINY, Array, entropy_bits, liquidity_bits, mean_law, mse, seed_index
from .prompts import PROMPTS

NARRATOR = np.array([prompt.narrator for prompt in PROMPTS])  # of every row of `answers`
HALF = np.array([prompt.half for prompt in PROMPTS])
ALPHA = 0.05  # of every test, and 1 - coverage of every interval
FEWEST = 40   # resamples: the least two-sided p-value is 2/(n+1)


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Independent streams for each (seed, purpose): adding a test does not shift the numbers of another."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *purpose.encode()])))


# --- intervals -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A number with its interval over narrators; `draws` are the resamples it was read from."""

    value: float
    low: float
    high: float
    draws: Array = field(repr=False, compare=False)

    def p_beyond(self, mark: float, side: str) -> float:
        """Two-sided bootstrap p-value of "on the `side` ("above", "below") of the mark": at most ALPHA only if the interval is.

        Twice the share of resamples on the other side, (b+1)/(n+1) so that it is never 0; 1 if any resample has no number.
        """
        if np.isnan(self.draws).any():
            return 1.0
        wrong = self.draws <= mark if side == "above" else self.draws >= mark
        return min(1.0, 2 * (wrong.sum() + 1) / (wrong.size + 1))


def resample(clusters: Array = NARRATOR, strata: Array | None = None, *, resamples: int = 1000, seed: int = 0) -> Array:
    """Bootstrap weights (resamples, prompts): how often each prompt's cluster was drawn.

    Clusters are drawn with replacement, within each stratum apart where strata are given (a split by halves must
    leave both halves their size).
    Raises: CrystalError for fewer resamples than any verdict needs.
    """
    if resamples < FEWEST:
        raise CrystalError(f"{resamples} resamples cannot reach a p-value of {ALPHA}", mend=f"ask for {FEWEST} or more")
    rng = generator(seed, "bootstrap")
    names, first, member = np.unique(clusters, return_index=True, return_inverse=True)
    layer = np.zeros(len(names)) if strata is None else np.asarray(strata)[first]
    counts = np.zeros((resamples, len(names)))
    for stratum in np.unique(layer):
        inside = np.flatnonzero(layer == stratum)
        counts[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=resamples)
    return counts[:, member]


def estimate(statistic: Callable[[Array], Array], weights: Array) -> Estimate:
    """Value of `statistic(weights)` with all prompts alike, and its 95 % bootstrap interval.

    statistic: (..., prompts) -> (...), such as `lambda w: liquidity_bits(base, w)`. Percentiles of the resamples, moved so
    that their median is the value: a resample repeats narrators, hence is less liquid than the whole by about a
    twentieth, and raw percentiles of liquidity cover 70-90 % where these cover 80-95 %. Never moved below 0 or above 1 if
    no resample is. Resamples without a number (0/0) are left out; without a value there is no interval.
    """
    value, draws = float(statistic(np.ones(weights.shape[-1]))), np.asarray(statistic(weights), float)
    usable = draws[~np.isnan(draws)]
    if np.isnan(value) or not usable.size:
        return Estimate(np.nan, np.nan, np.nan, draws)
    if np.isfinite(value) and np.isfinite(middle := np.median(usable)):
        floor = 0.0 if usable.min() >= 0 else -np.inf
        ceiling = 1.0 if usable.max() <= 1 + TINY else np.inf
        draws, usable = (np.clip(x + value - middle, floor, ceiling) for x in (draws, usable))
    # nearest order statistics: interpolating between two infinities gives nan
    low, high = np.quantile(usable, [ALPHA / 2, 1 - ALPHA / 2], method="inverted_cdf")
    return Estimate(value, float(low), float(high), draws)


def exactly(value: float) -> Estimate:
    """A number that no resampling changes."""
    return Estimate(float(value), float(value), float(value), np.empty(0))


def spread_of(draws: Array) -> Estimate:
    """Median and central 95 % of null or floor draws, as a number with an interval."""
    low, middle, high = np.quantile(draws, [ALPHA / 2, 0.5, 1 - ALPHA / 2])
    return Estimate(float(middle), float(low), float(high), draws)


# --- nulls -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Null:
    """What chance alone gives: `typical` value of the statistic, `observed` one, and p = (b+1)/(n+1) of the draws as extreme."""

    name: str
    observed: float
    typical: float
    p: float
    draws: Array = field(repr=False, compare=False)  # oriented as `observed`
    side: str = "above"  # extreme means large ("above") or small ("below")


def against(name: str, observed: float, draws: Array, side: str = "above") -> Null:
    """Compare an observed statistic with its null draws; ties count as extreme, so the test is never too bold."""
    slack = 1e-9 * max(1e-9, abs(observed))
    extreme = draws >= observed - slack if side == "above" else draws <= observed + slack
    return Null(name, float(observed), float(np.median(draws)), (extreme.sum() + 1) / (len(draws) + 1), draws, side)


def pooled_p(nulls: Sequence[Null], seed: int = 0) -> float:
    """One p-value for all tasks together: the sum of the observed statistics against sums of null draws.

    Each task counts in units of its null's own scatter. Its draws are shuffled first: tasks with equally many options
    share their relabellings. A null that cannot vary (all options in A) says nothing and is left out; nan if all are.
    """
    rng, told = generator(seed, "pool"), [null for null in nulls if np.ptp(null.draws) > 0]
    if not told:
        return float("nan")
    sums = np.sum([rng.permutation(null.draws) / null.draws.std() for null in told], axis=0)
    return against("all tasks together", sum(null.observed / null.draws.std() for null in told), sums, told[0].side).p


def relabellings(options: int, n: int, seed: int) -> Array:
    """n random permutations of the options, (n, options): a law keeps its shape and loses its meaning."""
    return generator(seed, "relabel").permuted(np.tile(np.arange(options), (n, 1)), axis=1)


def narrator_null(answers: Array, clusters: Array = NARRATOR, *, n: int = 999, seed: int = 0) -> Null:
    """Does the narrator matter beyond the frame? Narrators' labels are shuffled over the prompts of each frame, n times.

    The statistic is the liquidity between narrators' mean laws, in bits: all liquidity less the frame-only floor (the
    mean liquidity among the frames of one narrator). The k-th row of every narrator must be the same frame, as in PROMPTS.
    """
    names = np.unique(clusters)
    table = np.stack([answers[clusters == name] for name in names], 1)  # (frames, narrators, options)
    order = generator(seed, "narrators").permuted(np.tile(np.arange(len(names)), (len(table), n, 1)), axis=-1)
    shuffled = sum(table[frame][order[frame]] for frame in range(len(table))) / len(table)  # (n, narrators, options)
    draws = entropy_bits(answers.mean(0)) - entropy_bits(shuffled).mean(-1)
    return against("narrators shuffled within each frame", float(liquidity_bits(table.mean(0))), draws)


def swap_null(name: str, statistic: Callable[[Array, Array], Array], clusters: Array = NARRATOR, *, n: int = 999,
              seed: int = 0) -> Null:
    """Did the stage change anything? For a random half of the narrators the names of the two rungs are swapped, n times.

    statistic(first, second): a difference that is large if something changed; its arguments are weights over the rows of
    the two rungs stacked, (..., 2 prompts), those that count as the first rung and those that count as the second.
    """
    names, member = np.unique(clusters, return_inverse=True)
    swapped = np.vstack([np.zeros(len(names), bool), generator(seed, "swap").random((n, len(names))) < 0.5])[:, member]
    first = np.concatenate([~swapped, swapped], axis=-1).astype(float)
    observed, *draws = statistic(first, 1 - first)
    return against(name, float(observed), np.array(draws))


def split_half_floor(answers: Array, distance: Callable[[Array, Array], Array], *, clusters: Array = NARRATOR,
                     splits: int = 200, seed: int = 0) -> Array:
    """Distance between the mean laws of two random halves of the narrators of one rung, (splits,): what no change looks like."""
    names, member = np.unique(clusters, return_inverse=True)
    order = generator(seed, "halves").permuted(np.tile(np.arange(len(names)), (splits, 1)), axis=1)
    first = (order < len(names) // 2)[:, member].astype(float)
    return distance(mean_law(answers, first), mean_law(answers, 1 - first))


def holm(p: Sequence[float]) -> Array:
    """Holm's adjusted p-values: reject those at most alpha, and the chance of any false rejection is at most alpha."""
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


# --- the seed, chosen and scored apart -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """A seed and what it is scored against."""

    index: int     # row of the base that is the seed, a prompt of the selection half
    seed: Array    # its law, (options,)
    target: Array  # the SFT law on the evaluation half, (..., options) with resamples leading


def split_seed(base: Array, sft: Array, weights: Array | None = None, half: Array = HALF) -> Split:
    """The seed: of the selection half's base prompts, the nearest to the selection half's SFT law.

    The nearest of 50 is near partly by luck; scored against the evaluation half's SFT law it owes luck nothing, for the
    evaluation narrators took no part in the choice. `weights` count in the evaluation half only: the claim is that *a*
    prompt holds the law, so a resample in which that prompt is not drawn says nothing against it.
    """
    weights = np.ones(len(base)) if weights is None else weights
    pool = np.flatnonzero(half == "selection")
    index = int(pool[seed_index(base[pool], sft[pool].mean(0))])
    return Split(index, base[index], mean_law(sft, weights * (half == "evaluation")))


def relabelled_seed_null(base: Array, sft: Array, relabelled: Array, half: Array = HALF) -> Null:
    """Would any law of that shape find a prompt as near? The SFT law's options are permuted and the whole choice repeated.

    relabelled: (n, options) permutations. The statistic is the seed's MSE to the evaluation half's SFT law.
    """
    split, selection = split_seed(base, sft, half=half), half == "selection"
    chosen = seed_index(base[selection], sft[selection].mean(0)[relabelled])
    draws = mse(base[selection][chosen], split.target[relabelled])
    return against("options of the SFT law permuted", float(mse(split.seed, split.target)), draws, "below")


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
