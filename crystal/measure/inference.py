"""Intervals, nulls and floors for the quantities of `crystal.measure.phases`.

A read-out is exact, so nothing here is about sampling answers. What is random is which narrators were asked: another
twenty could have been written. Hence one unit everywhere, the *narrator*: the five frames of a narrator share a
speaker and are no independent evidence, so they are left out, swapped and relabelled together. Taking the 100
prompts one by one would make every interval about half as wide as it should be.

One kind of interval everywhere: leave out one unit at a time, and let Student's t say how far the mean of what the units
contribute may be off. Of a plain mean, over training runs say, that is the textbook's interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..ask.prompts import PROMPTS
from ..errors import CrystalError
from .chance import FEWEST, generator, parts
from .chance import check_permutations as check_permutations
from .chance import dealt as dealt
from .chance import relabellings as relabellings
from .leaving import NARRATOR, LeftOut
from .leaving import leave_one_out as leave_one_out
from .phases import TINY, Array, entropy_bits, mean_law
from .phases import ratio as quotient

FRAME = np.array(
    [prompt.frame.name for prompt in PROMPTS]
)  # of every row of `answers`, as NARRATOR
HALF = np.array([prompt.half for prompt in PROMPTS])
ALPHA = 0.05  # of every test, and 1 - coverage of every interval


# --- intervals -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, and the Student's t law the interval comes from: (centre, error, freedom), on its scale.

    No interval: low, high and error are nan. Certain: error is 0.
    """

    value: float
    low: float
    high: float
    centre: float = field(default=np.nan, repr=False)
    error: float = field(default=np.nan, repr=False)
    freedom: float = field(default=np.nan, repr=False)
    scale: str = field(default="linear", repr=False)  # or "log": centre and error are of the log
    here: float = field(default=np.nan, repr=False)  # the number of these very prompts; value: of
    # prompts as they might have been, free of the bias that few units give

    def p_beyond(self, mark: float, side: str) -> float:
        """Two-sided p-value of "on the `side` ("above", "below") of the mark": at most ALPHA only if the interval is.

        1 if there is no interval.
        """
        if np.isnan(self.error):
            return 1.0
        from scipy import special  # here: most of what imports this module judges nothing

        away = (self.centre - (np.log(mark) if self.scale == "log" else mark)) * (1 if side == "above" else -1)
        if self.error == 0:
            return 0.0 if away > 0 else 1.0
        return min(1.0, 2 * float(special.stdtr(self.freedom, -away / self.error)))

    def quantiles(self, at: Array) -> Array:
        """Quantiles of the law, on the number's own scale."""
        from scipy import special

        found = self.centre + (self.error * special.stdtrit(self.freedom, at) if self.error else np.zeros_like(at))
        return np.exp(found) if self.scale == "log" else found


NOTHING = Estimate(np.nan, np.nan, np.nan)  # a number that does not exist, or has no interval


def estimate(
    statistic: Callable[[Array], Array],
    weights: Array | LeftOut,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    scale: str = "linear",
) -> Estimate:
    """`statistic(weights)` with its 95 % interval over units: delete-one jackknife and Student's t.

    statistic: (..., prompts) -> (...), such as `lambda w: liquidity_bits(base, w)`; weights: of `leave_one_out`. With n units,
    S of all and S_-i without unit i, the n numbers n S - (n-1) S_-i are treated as a sample of n: their mean is the value, free
    of the bias of order 1/n that twenty narrators give to liquidity, and their scatter the error (Tukey 1958).
    scale: "log" for a positive number, such as a ratio, whose error grows with it; where S or any S_-i is not positive, "linear"
    is taken. low, high: what the number cannot leave. One unit, or a statistic without a number: no interval.
    Simulated coverage: page `validation`.
    """
    found = np.asarray(statistic(weights), float)
    whole, without = found[0], found[1:]
    if len(without) < 2 or np.isnan(whole):
        return Estimate(float(whole), np.nan, np.nan, here=float(whole))
    if not np.isfinite(found).all():  # over nothing, with every unit or without some
        if np.isinf(found).all():
            return exactly(whole)
        return Estimate(float(whole), np.nan, np.nan, here=float(whole))
    taken = scale if scale == "log" and (found > TINY).all() else "linear"
    forth = np.log if taken == "log" else np.asarray
    strata = getattr(weights, "strata", None)
    strata = np.zeros(len(without), int) if strata is None else strata
    n = np.bincount(strata)[strata]
    values = n * forth(whole) - (n - 1) * forth(without)
    guess = student(values, low=low, high=high, scale=taken, strata=strata, about=forth(whole))
    return replace(guess, here=float(whole))


def ratio(numerator: Callable[[Array], Array], denominator: Callable[[Array], Array],
          weights: Array | LeftOut, *, high: float = np.inf) -> Estimate:
    """numerator over denominator, both never negative in truth, with the interval of `estimate` on the logarithm.

    A ratio to something that cannot be told from zero has no interval that covers: where the denominator's own interval reaches
    0 there is no number. (Simulated on ladders whose SFT moved nothing, intervals of such ratios covered 50 to 80 %.)
    """
    below = np.asarray(denominator(weights), float)
    if (below > TINY).any() and not estimate(lambda _: below, weights).low > TINY:  # exactly nothing is no guess: x/0 is inf
        return NOTHING
    return estimate(lambda w: quotient(numerator(w), below), weights, low=0, high=high, scale="log")


def student(
    values: Array,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    scale: str = "linear",
    strata: Array | None = None,
    about: float = 0.0,
) -> Estimate:
    """Mean of independent values with Student's 95 % interval, cut to its bounds.

    scale "log": the values are logarithms. strata: (values,) groups that were chosen apart; only
    the scatter inside them is error, and the values are pseudo-values of one number `about` which
    the groups' corrections are added up (stratified jackknife: Jones 1974). Degrees of freedom:
    Welch and Satterthwaite, or `freedom` of the values less their groups' means if that is fewer.
    """
    strata = np.zeros(len(values), int) if strata is None else strata
    parts = [values[strata == group] for group in np.unique(strata)]
    means = np.array([part.mean() for part in parts])
    mean = float(means[0]) if len(parts) == 1 else float(about + (means - about).sum())
    errors = np.array([part.var(ddof=1) / len(part) for part in parts])
    error = float(np.sqrt(errors.sum()))
    if error < TINY * max(1.0, abs(mean)):  # rounding is no scatter
        error = 0.0
    free = len(values) - float(len(parts))
    if error:
        inside = np.concatenate([p - m for p, m in zip(parts, means, strict=True)])
        free = freedom(inside) * free / (len(values) - 1)
        if len(parts) > 1:
            each = np.array([len(part) - 1 for part in parts])
            free = min(free, float(errors.sum() ** 2 / (errors**2 / each).sum()))
    law = Estimate(mean, mean, mean, mean, error, free, scale)
    ends = np.clip(law.quantiles(np.array([0.5, ALPHA / 2, 1 - ALPHA / 2])), low, high)
    return replace(law, value=float(ends[0]), low=float(ends[1]), high=float(ends[2]))


def widened(found: Estimate, extra: float, *, low: float = -np.inf, high: float = np.inf) -> Estimate:
    """An estimate with a further, independent standard error of its value, such as that of draws behind one law.

    Degrees of freedom by Welch and Satterthwaite, the extra error taken as known.
    """
    if not extra > 0 or np.isnan(found.error):  # nothing to add, or nothing to add to
        return found
    added = extra / found.value if found.scale == "log" else extra
    error = float(np.hypot(found.error, added))
    law = replace(found, error=error, freedom=found.freedom * (error / found.error) ** 4 if found.error else np.inf)
    ends = np.clip(law.quantiles(np.array([ALPHA / 2, 1 - ALPHA / 2])), low, high)
    return replace(law, low=float(ends[0]), high=float(ends[1]))


def freedom(values: Array) -> float:
    """Degrees of freedom of Student's t: n - 1, or fewer where heavy tails make the scatter itself uncertain.

    Satterthwaite's: twice the squared variance over the variance of its estimate, 2 n / (kurtosis + 2 n / (n - 1)), which is
    n - 1 for a normal law. Fewer than eight values tell nothing about tails.
    """
    n = len(values)
    excess = max(0.0, excess_kurtosis(values)) if n >= 8 else 0.0
    return 2 * n / (excess + 2 * n / (n - 1))


def excess_kurtosis(values: Array) -> float:
    """Excess kurtosis without the bias of small samples (G2 of Joanes and Gill 1998).

    As scipy.stats.kurtosis(values, bias=False), whose import alone takes longer than many a page.
    """
    n, off = len(values), values - values.mean()
    heavy = (off**4).mean() / (off**2).mean() ** 2
    return float((n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * heavy - 3 * (n - 1)))


def share(hits: int, n: int) -> tuple[float, float]:
    """Exact 95 % interval of a share of n independent trials (Clopper and Pearson 1934)."""
    from scipy import special

    low = special.betaincinv(hits, n - hits + 1, ALPHA / 2) if hits else 0.0
    high = special.betaincinv(hits + 1, n - hits, 1 - ALPHA / 2) if hits < n else 1.0
    return float(low), float(high)


def exactly(value: float) -> Estimate:
    """A number that no other prompts would change."""
    value = float(value)
    return Estimate(value, value, value, value, 0.0, np.inf, here=value)


def spread_of(draws: Array) -> Estimate:
    """Median and central 95 % of null or floor draws, as a number with an interval."""
    low, middle, high = np.quantile(draws, [ALPHA / 2, 0.5, 1 - ALPHA / 2])
    return Estimate(float(middle), float(low), float(high))


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
    paired: bool = False  # the n-th draw of every task does the same to the same units


def against(name: str, observed: float, draws: Array, side: str = "above", *, paired: bool = False) -> Null:
    """Compare an observed statistic with its null draws; ties count as extreme, so the test is never too bold."""
    if len(draws) < FEWEST:
        raise CrystalError(f"{len(draws)} permutations cannot reach a p-value of {ALPHA}", mend=f"ask for {FEWEST} or more")
    slack = 1e-9 * max(1e-9, abs(observed))
    extreme = draws >= observed - slack if side == "above" else draws <= observed + slack
    p = float((extreme.sum() + 1) / (len(draws) + 1))
    return Null(name, float(observed), float(np.median(draws)), p, draws, side, paired)


def pooled(nulls: Sequence[Null], seed: int = 0) -> Null | None:
    """One null for all tasks together: the sum of the observed statistics against sums of null draws.

    Each task counts in units of its null's own scatter. Draws that shuffle or swap units go together: all tasks were put to the
    same ones. Others are shuffled first: tasks with equally many options share their relabellings, and nothing else. A null that
    cannot vary (all options in A) says nothing and is left out; None if all are.
    """
    rng, told = generator(seed, "pool"), [null for null in nulls if np.ptp(null.draws) > 0]
    if not told:
        return None
    sums = np.sum([(null.draws if null.paired else rng.permutation(null.draws)) / null.draws.std() for null in told], axis=0)
    observed = sum(null.observed / null.draws.std() for null in told)
    return against(f"{told[0].name}, all tasks together", observed, sums, told[0].side)


def unit_null(laws: Array, units: Array = NARRATOR, block: Array = FRAME, *, n: int = 999, seed: int = 0) -> Null:
    """Does it matter who asks, beyond how? The units' labels are shuffled over the prompts of each block (frame), n times.

    The statistic is the liquidity between units' mean laws, in bits: all liquidity less the floor among a unit's own prompts.
    """
    names, member = np.unique(units, return_inverse=True)
    order = np.argsort(member, kind="stable")  # places of the first unit, of the second, ...
    sizes, total = np.bincount(member), entropy_bits(laws.mean(0))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def between(row: Array) -> float:
        means = np.add.reduceat(laws[row[order]], starts) / sizes[:, None]
        return total - sizes @ entropy_bits(means) / len(laws)

    rng, draws = generator(seed, "units"), []
    for part in parts(n, len(laws)):
        rows = np.tile(np.arange(len(laws)), (part, 1))
        for one in np.unique(block):
            inside = np.flatnonzero(block == one)
            rows[:, inside] = rng.permuted(rows[:, inside], axis=1)
        draws += map(between, rows)
    observed = between(np.arange(len(laws)))
    where = " within each frame" if len(np.unique(block)) > 1 else ""
    return against(f"who asks shuffled{where}", max(0.0, float(observed)), np.array(draws), paired=True)


def swap_null(name: str, statistic: Callable[[Array, Array], Array], clusters: Array = NARRATOR, *, n: int = 999,
              seed: int = 0) -> Null:
    """Did the stage change anything? For a random half of the narrators the names of the two rungs are swapped, n times.

    statistic(first, second): a difference that is large if something changed; its arguments are weights over the rows of
    the two rungs stacked, (..., 2 prompts), those that count as the first rung and those that count as the second.
    """
    names, member = np.unique(clusters, return_inverse=True)
    rng, found = generator(seed, "swap"), []
    for part in parts(n + 1, 2 * len(member)):
        swapped = rng.random((part - (not found), len(names))) < 0.5
        if not found:  # as they are
            swapped = np.vstack([np.zeros(len(names), bool), swapped])
        first = np.concatenate([~swapped[:, member], swapped[:, member]], axis=-1).astype(float)
        found.append(statistic(first, 1 - first))
    observed, *draws = np.concatenate(found)
    return against(name, float(observed), np.array(draws), paired=True)


def split_half_floor(answers: Array, distance: Callable[[Array, Array], Array], *, clusters: Array = NARRATOR,
                     splits: int = 200, seed: int = 0) -> Array:
    """Distance between the mean laws of two random halves of the narrators of one rung, (splits,): what no change looks like."""
    names, member = np.unique(clusters, return_inverse=True)
    order = generator(seed, "halves").permuted(np.tile(np.arange(len(names)), (splits, 1)), axis=1)
    first = (order < len(names) // 2)[:, member].astype(float)
    return distance(mean_law(answers, first), mean_law(answers, 1 - first))


# --- chosen and scored apart -----------------------------------------------------------------------------------------


def folds(half: Array = HALF) -> tuple[tuple[Array, Array], ...]:
    """(chosen, scored) masks over prompts: the selection half chooses for the evaluation half, and the other way round.

    What is chosen on some prompts is scored on others, or luck would count as evidence; each half chooses once, or half of
    the evidence would be spent on choosing.
    """
    first = half == "selection"
    return (first, ~first), (~first, first)
