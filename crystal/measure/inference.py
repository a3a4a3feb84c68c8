"""Intervals and nulls for the quantities, and the random streams behind them.

What is random is which contexts were asked. So the cluster is the context: its wordings are left
out, swapped and relabelled together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from ..errors import CrystalError
from .quantities import TINY, Array, entropy_bits, mean_distribution, tv
from .quantities import ratio as quotient

ALPHA = 0.05  # of every test, and 1 - coverage of every interval
FEWEST = 19  # permutations: the least p-value is 1/(n+1)
BLOCK = 2**22  # numbers held at once of what is shuffled
CELLS = 5 * 10**7  # numbers in the relabelled options of one task
DENSE = 2**20  # numbers up to which weights are an array

# --- chance


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Independent streams for each (seed, purpose). Raises: CrystalError for a negative seed."""
    if seed < 0:
        raise CrystalError(f"the seed is {seed}", hint="choose a whole number of 0 or more")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *purpose.encode()])))


def parts(n: int, size: int, block: int = BLOCK) -> list[int]:
    """How many of n things of `size` numbers each are taken at a time, `block` numbers at most."""
    most = max(1, block // size)
    return [min(most, n - done) for done in range(0, n, most)]


def shuffled(things: Array, n: int, rng: np.random.Generator) -> Array:
    """(n, things), every row in an order of its own."""
    return rng.permuted(np.tile(things, (n, 1)), axis=1)


def relabellings(options: int, n: int, seed: int) -> Array:
    """n random permutations of the options, (n, options). Raises: CrystalError above CELLS."""
    if n * options > CELLS:
        what = f"{n} permutations of {options} options are too many to hold"
        hint = "merge the rare options into one, or say --permutations "
        raise CrystalError(what, hint=hint + str(max(FEWEST, CELLS // options)))
    return shuffled(np.arange(options), n, generator(seed, "relabel"))


# --- leaving out one cluster at a time


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Weights (1 + clusters, prompts), never written out: row r is scale[r], but 0 for the prompts
    of cluster r - 1.
    """

    member: Array  # (prompts,) the cluster of every prompt
    scale: Array  # (1 + clusters, 1)

    __array_ufunc__ = None  # numpy leaves `array * w` to this class

    def __truediv__(self, column: Array) -> LeftOut:
        return LeftOut(self.member, self.scale / column)

    def __pow__(self, power: int) -> LeftOut:
        return LeftOut(self.member, self.scale**power)

    def __matmul__(self, answers: Array) -> Array:
        columns = np.asarray(answers, float).reshape(len(self.member), -1).T
        sums = np.empty((len(self.scale), len(columns)))
        for column, out in zip(columns, sums.T):
            out[0] = column.sum()
            out[1:] = out[0] - np.bincount(self.member, column, len(out) - 1)
        sums *= self.scale
        return sums if np.ndim(answers) > 1 else sums[:, 0]

    def sum(self, axis: int = -1, keepdims: bool = False) -> Array:
        total = self @ np.ones(len(self.member))
        return total[:, None] if keepdims else total


class Stratified(np.ndarray):
    """Rows of `leave_one_out` where clusters were chosen by strata; `strata`: (clusters,)."""

    strata: Array | None = None


Weights = Array | LeftOut
Statistic = Callable[[Array], Array]  # weights (..., prompts) -> (...)
OfTwo = Callable[[Array, Array], Array]


def leave_one_out(clusters: Array, strata: Array | None = None) -> Weights:
    """Weights (1 + clusters, prompts): every prompt, then all but those of each cluster in turn; of
    one cluster only the first row. strata: (prompts,) the group that each cluster was chosen from:
    the rest of it, if any, stands in for the cluster left out.
    """
    names, member = np.unique(clusters, return_inverse=True)
    n, prompts = len(names), len(member)
    if n < 2:  # without it nobody is left
        return np.ones((1, prompts))
    if (1 + n) * prompts > DENSE:
        return LeftOut(member, np.ones((1 + n, 1)))
    weights = (member != np.arange(-1, n)[:, None]).astype(float)
    if strata is not None:
        group, of_cluster = np.unique(strata, return_inverse=True)[1], np.zeros(n, int)
        of_cluster[member] = group
        size = np.bincount(of_cluster)
        if size.min() > 1:
            beside = of_cluster[:, None] == group
            weights[1:] *= np.where(beside, (size / (size - 1))[group], 1.0)
            weights = weights.view(Stratified)
            weights.strata = of_cluster
    return weights


# --- intervals


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, from Student's t (centre, error, freedom) on its scale; all
    but `value` and `here` are nan where there is no interval. Certain: error is 0.
    """

    value: float  # of prompts as they might have been, free of the bias that few clusters give
    low: float
    high: float
    centre: float = np.nan
    error: float = np.nan
    freedom: float = np.nan
    scale: str = "linear"  # or "log": centre and error are of the log
    here: float = np.nan  # the number of these very prompts

    def p_beyond(self, threshold: float, side: str) -> float:
        """Two-sided p-value of "on the `side` ("above", "below") of the threshold": at most ALPHA
        only if the interval is there, too; 1 if there is none.
        """
        if np.isnan(self.error):
            return 1.0
        from scipy import special  # here: most of what imports this module judges nothing

        away = self.centre - (np.log(threshold) if self.scale == "log" else threshold)
        away *= 1 if side == "above" else -1
        if self.error == 0:
            return 0.0 if away > 0 else 1.0
        return min(1.0, 2 * float(special.stdtr(self.freedom, -away / self.error)))


NOTHING = Estimate(np.nan, np.nan, np.nan)  # a number that does not exist, or has no interval


def estimate(
    statistic: Statistic, weights: Weights, *, low=-inf, high=inf, scale: str = "linear"
) -> Estimate:
    """`statistic(weights)` with its 95 % interval over clusters: delete-one jackknife, Student's t.

    weights: of `leave_one_out`. With n clusters, S of all and S_-i without cluster i, the n numbers
    n S - (n-1) S_-i are treated as a sample: their mean is the value, free of the bias of order
    1/n, and their scatter the error (Tukey 1958). scale: "log" for a positive number whose error
    grows with it, if S and all S_-i are positive. low, high: what the number cannot leave. One
    cluster, or a statistic without a number: no interval.
    """
    found = np.asarray(statistic(weights), float)
    here, clusters = float(found[0]), len(found) - 1
    if clusters > 1 and np.isinf(found).all():  # over nothing, with or without a cluster
        return exactly(here)
    if clusters < 2 or not np.isfinite(found).all():
        return replace(NOTHING, value=here, here=here)
    scale = scale if (found > TINY).all() else "linear"
    whole, *without = np.log(found) if scale == "log" else found
    strata = getattr(weights, "strata", None)
    strata = np.zeros(clusters, int) if strata is None else strata
    n = np.bincount(strata)[strata]
    values = n * whole - (n - 1) * np.array(without)
    guess = student(values, low=low, high=high, scale=scale, strata=strata, about=whole)
    return replace(guess, here=here)


def ratio(numerator: Statistic, denominator: Statistic, weights: Weights) -> Estimate:
    """`estimate` of the logarithm of a ratio that is never negative in truth. No number if the
    denominator's interval includes 0 (such intervals covered 50 to 80 % in simulation).
    """
    below = np.asarray(denominator(weights), float)
    if (below > TINY).any() and not estimate(lambda _: below, weights).low > TINY:
        return NOTHING
    return estimate(lambda w: quotient(numerator(w), below), weights, low=0, scale="log")


def student(
    values: Array, *, low=-inf, high=inf, scale: str = "linear", strata=None, about: float = 0.0
) -> Estimate:
    """Mean of independent values with Student's 95 % interval, cut to its bounds.

    scale "log": the values are logarithms. strata: (values,) groups that were chosen apart: only
    the scatter inside them is error, and the groups' corrections are added to `about` (stratified
    jackknife: Jones 1974). Degrees of freedom: Welch and Satterthwaite's, or `freedom` if fewer.
    """
    strata = np.zeros(len(values), int) if strata is None else strata
    groups = [values[strata == group] for group in np.unique(strata)]
    means = np.array([group.mean() for group in groups])
    mean = float(means[0]) if len(groups) == 1 else float(about + (means - about).sum())
    errors = np.array([group.var(ddof=1) / len(group) for group in groups])
    error = float(np.sqrt(errors.sum()))
    if error < TINY * max(1.0, abs(mean)):  # rounding is no scatter
        error = 0.0
    free = len(values) - float(len(groups))
    if error:
        inside = np.concatenate([g - m for g, m in zip(groups, means)])
        free = freedom(inside) * free / (len(values) - 1)
        if len(groups) > 1:
            each = np.array([len(group) - 1 for group in groups])
            free = min(free, float(errors.sum() ** 2 / (errors**2 / each).sum()))
    value = float(np.clip(np.exp(mean) if scale == "log" else mean, low, high))
    return _cut(Estimate(value, mean, mean, mean, error, free, scale), low, high)


def _cut(found: Estimate, low: float, high: float) -> Estimate:
    """The estimate with the ends of its interval cut to bounds."""
    from scipy import special

    t = special.stdtrit(found.freedom, [ALPHA / 2, 1 - ALPHA / 2]) if found.error else np.zeros(2)
    ends = found.error * t + found.centre
    ends = np.clip(np.exp(ends) if found.scale == "log" else ends, low, high)
    return replace(found, low=float(ends[0]), high=float(ends[1]))


def widened(found: Estimate, extra: float, *, low: float = -inf) -> Estimate:
    """With one more, independent standard error, taken as known (Welch and Satterthwaite)."""
    if not extra > 0 or np.isnan(found.error):  # nothing to add, or nothing to add to
        return found
    added = extra / found.value if found.scale == "log" else extra
    error = float(np.hypot(found.error, added))
    free = found.freedom * (error / found.error) ** 4 if found.error else inf
    return _cut(replace(found, error=error, freedom=free), low, inf)


def freedom(values: Array) -> float:
    """Degrees of freedom of Student's t: n - 1, fewer where heavy tails make scatter uncertain;
    Satterthwaite's 2 n / (kurtosis + 2 n / (n - 1)), the unbiased excess of eight values or more.
    """
    n, off = len(values), values - values.mean()
    excess = 0.0
    if n >= 8:
        heavy = (off**4).mean() / (off**2).mean() ** 2
        excess = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * heavy - 3 * (n - 1))
    return 2 * n / (max(0.0, float(excess)) + 2 * n / (n - 1))


def share(hits: int, n: int) -> tuple[float, float]:
    """Exact 95 % interval of a share of n independent trials (Clopper and Pearson 1934)."""
    from scipy import special

    low = special.betaincinv(hits, n - hits + 1, ALPHA / 2) if hits else 0.0
    high = special.betaincinv(hits + 1, n - hits, 1 - ALPHA / 2) if hits < n else 1.0
    return float(low), float(high)


def exactly(value: float) -> Estimate:
    """A number that no other prompts would change."""
    value = float(value)
    return Estimate(value, value, value, value, 0.0, inf, here=value)


# --- nulls


@dataclass(frozen=True)
class Null:
    """What chance alone gives; p = (b+1)/(n+1) with b of the n draws as extreme as `observed`."""

    name: str
    observed: float
    typical: float
    p: float
    draws: Array = field(repr=False, compare=False)
    paired: bool = False  # the n-th draw of every task does the same to the same clusters


def against(name: str, observed: float, draws: Array, *, paired: bool = False) -> Null:
    """Compare an observed statistic with its null draws; large and ties count as extreme."""
    if len(draws) < FEWEST:
        what = f"{len(draws)} permutations cannot reach a p-value of {ALPHA}"
        raise CrystalError(what, hint=f"ask for {FEWEST} or more")
    extreme = draws >= observed - 1e-9 * max(1e-9, abs(observed))
    p = float((extreme.sum() + 1) / (len(draws) + 1))
    return Null(name, float(observed), float(np.median(draws)), p, draws, paired)


def pooled(nulls: Sequence[Null], seed: int = 0) -> Null | None:
    """One null for all tasks: the sum of observed statistics against sums of null draws, each task
    in units of its null's own scatter. Draws that are not paired are shuffled first. A null that
    cannot vary is left out; None if all are.
    """
    rng, varied = generator(seed, "pool"), [null for null in nulls if np.ptp(null.draws) > 0]
    if not varied:
        return None
    observed = sum(null.observed / null.draws.std() for null in varied)
    each = ((x.draws if x.paired else rng.permutation(x.draws)) / x.draws.std() for x in varied)
    return against(f"{varied[0].name}, all tasks together", observed, sum(each))


def cluster_null(
    answers: Array, clusters: Array, block: Array, *, permutations: int = 999, seed: int = 0
) -> Null:
    """Does it matter who asks, beyond how? Clusters' labels, (prompts,), are shuffled within each
    block. The statistic is the liquidity between clusters' means.
    """
    _, member = np.unique(clusters, return_inverse=True)
    order = np.argsort(member, kind="stable")  # places of the first cluster, of the second, ...
    sizes, total = np.bincount(member), entropy_bits(answers.mean(0))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def between(row: Array) -> float:
        means = np.add.reduceat(answers[row[order]], starts) / sizes[:, None]
        return total - sizes @ entropy_bits(means) / len(answers)

    rng, draws, blocks = generator(seed, "units"), [], np.unique(block)
    for part in parts(permutations, len(answers)):
        rows = np.empty((part, len(answers)), int)
        for one in blocks:
            inside = np.flatnonzero(block == one)
            rows[:, inside] = shuffled(inside, part, rng)
        draws += map(between, rows)
    observed = max(0.0, float(between(np.arange(len(answers)))))
    where = " within each wording" if len(blocks) > 1 else ""
    return against(f"the contexts shuffled{where}", observed, np.array(draws), paired=True)


def swap_null(
    name: str, statistic: OfTwo, clusters: Array, *, permutations: int = 999, seed: int = 0
) -> Null:
    """Did the stage change anything? Checkpoints' names are swapped for random clusters.

    statistic(first, second): large if so; both weigh the rows of the checkpoints stacked,
    (..., 2 prompts).
    """
    names, member = np.unique(clusters, return_inverse=True)
    rng, found = generator(seed, "swap"), []
    for part in parts(permutations + 1, 2 * len(member)):
        swapped = rng.random((part - (not found), len(names))) < 0.5
        if not found:  # as they are
            swapped = np.vstack([np.zeros(len(names), bool), swapped])
        first = np.concatenate([~swapped[:, member], swapped[:, member]], axis=-1).astype(float)
        found.append(statistic(first, 1 - first))
    observed, *draws = np.concatenate(found)
    return against(name, observed, np.array(draws), paired=True)


def split_half_floor(answers: Array, clusters: Array, *, splits: int, seed: int = 0) -> Estimate:
    """Total variation between the means of random halves of the clusters, where nothing changes:
    median and central 95 %.
    """
    names, member = np.unique(clusters, return_inverse=True)
    order = shuffled(np.arange(len(names)), splits, generator(seed, "halves"))
    first = (order < len(names) // 2)[:, member].astype(float)
    found = tv(mean_distribution(answers, first), mean_distribution(answers, 1 - first))
    low, middle, high = np.quantile(found, [ALPHA / 2, 0.5, 1 - ALPHA / 2])
    return Estimate(float(middle), float(low), float(high))
