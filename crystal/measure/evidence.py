"""Answers with what they rest on: which prompts are answered, who was asked, how many draws.

A read-out counts as infinitely many draws, with which every correction is zero. From draws, squared
distances are unbiased and may come out below 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import CrystalError
from . import inference as inf
from . import quantities as ph
from .quantities import Array, even

LEAST = 0.2  # mass on the options from which on a prompt is answered
FEWEST_PROMPTS = 50  # that must answer, where more were asked
FEWEST = 4  # draws on an option in a prompt
DEALS = 2**24  # numbers held at once of tables dealt anew
SELECTION, EVALUATION = "selection", "evaluation"

# --- answered or not


def answers(mass: Array) -> Array:
    """Which prompts are answered, bool: those with LEAST or more of the mass on the options. What a
    model would say if it did what it hardly ever does looks like a crystal.
    """
    return np.asarray(mass, float) >= LEAST


def both(*masses: Array) -> Array:
    """(prompts,) which prompts all of the compared checkpoints answer."""
    return np.logical_and.reduce([answers(mass) for mass in masses])


def needed(asked: int) -> int:
    """How many prompts must be answered: FEWEST_PROMPTS; half of them if no more were asked."""
    return FEWEST_PROMPTS if asked > FEWEST_PROMPTS else (asked + 1) // 2


@dataclass(frozen=True)
class Count:
    """How many prompts each of the compared checkpoints answered."""

    answered: int
    asked: int
    median: float  # over prompts, of the mass of the checkpoint that answers least

    @property
    def measurable(self) -> bool:
        return self.answered >= max(1, needed(self.asked))

    @property
    def said(self) -> str:
        """`97 of 100 prompts answered (median mass .91)`."""
        median = f"{self.median:.2f}".removeprefix("0")
        return f"{self.answered} of {self.asked} prompts answered (median mass {median})"

    @property
    def why(self) -> str:
        """Why there is no number."""
        return f"not measurable: {self.answered} of {self.asked} prompts answered"


def count(*masses: Array) -> Count:
    """The count of the prompts that every one of `masses`, each (prompts,), answers."""
    medians = [float(np.median(mass)) for mass in masses if len(mass)]
    return Count(int(both(*masses).sum()), len(masses[0]), min(medians, default=0.0))


# --- evidence


@dataclass(frozen=True)
class Evidence:
    """The answers of one checkpoint to one task; those of a series have the same prompts."""

    distribution: Array  # (prompts, options), given that an option is the answer
    clusters: Array  # (prompts,) who asks: prompts of one cluster are no independent evidence
    half: Array  # (prompts,) "selection" or "evaluation", alike within a cluster
    block: Array  # (prompts,) prompts that may swap clusters if clusters do not matter: the wording
    draws: Array  # (prompts,) how many draws fell on an option; inf: read out
    strata: Array | None = None  # (prompts,) the group that each cluster was chosen from, if any

    @property
    def exact(self) -> bool:
        return bool(np.isinf(self.draws).all())

    @property
    def counts(self) -> Array:
        """(prompts, options) whole numbers; of draws only."""
        return np.round(self.distribution * self.draws[:, None]).astype(np.int64)

    @property
    def noise(self) -> Array:
        """(prompts,) expected MSE of a row to what it estimates, sum p (1 - p) / (K (n - 1))."""
        p = self.distribution
        with np.errstate(divide="ignore"):
            noise = (1 - (p**2).sum(-1)) / (p.shape[1] * (self.draws - 1))
            return np.where(np.isinf(self.draws), 0.0, noise)

    @property
    def weights(self) -> inf.Weights:
        """(1 + clusters, prompts), of `inference.leave_one_out`."""
        return inf.leave_one_out(self.clusters, strata=self.strata)

    @property
    def folds(self) -> tuple[tuple[Array, Array], ...]:
        """(chosen, scored) masks over prompts: what one half chooses the other scores, for luck in
        choosing is no evidence.
        """
        first = self.half == SELECTION
        return (first, ~first), (~first, first)


def asked(
    distribution: Array, clusters: Sequence, draws: Array | None = None, block: Array | None = None
) -> Evidence:
    """Evidence of any prompts; every second cluster, as they appear, is of the evaluation half.
    Raises: CrystalError for fewer draws than FEWEST.
    """
    clusters = np.asarray(clusters)
    _, first, member = np.unique(clusters, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[member]
    draws = np.full(len(distribution), np.inf) if draws is None else np.asarray(draws, float)
    if (draws < FEWEST).any():
        least = int(np.argmin(draws))
        what = f"prompt {least} has {draws[least]:.0f} draws on an option, and {FEWEST} are needed"
        hint = "draw more, or leave that prompt out"
        raise CrystalError(f"{what}: half choose, half score, and one shows no scatter", hint=hint)
    half = np.where(place % 2 == 0, SELECTION, EVALUATION)
    block = np.zeros(len(distribution)) if block is None else np.asarray(block)
    return Evidence(np.asarray(distribution, float), clusters, half, block, draws)


def spread(given: Evidence, w: Array) -> Array:
    """`quantities.spread` less what sampling adds: E[MSE(p^_i, p^_j)] = MSE(p_i, p_j) + noise_i +
    noise_j. w: (..., prompts).
    """
    share = even(w)
    squares = share**2
    added = 2 * (share @ given.noise - squares @ given.noise)
    return ph.spread(given.distribution, w) - ph.ratio(added, 1 - squares.sum(-1))


def liquidity(given: Evidence, w: Array) -> Array:
    """`quantities.liquidity_bits`; from draws with the entropies of Chao, Wang and Jost (2013),
    that of the mean, whose rows may have unequal draws, corrected as that of the pooled counts.
    """
    if given.exact:
        return ph.liquidity_bits(given.distribution, w)
    counts, share = given.counts, even(w)
    pooled = w @ counts
    correction = ph.chao_wang_jost(pooled) - ph.entropy_bits(even(pooled))
    whole = ph.entropy_bits(share @ given.distribution) + correction
    return whole - share @ ph.chao_wang_jost(counts)


def together(first: Evidence, second: Evidence) -> Evidence:
    """The prompts of two checkpoints stacked, for nulls that swap their names."""
    names = ("distribution", "clusters", "half", "block", "draws")
    return Evidence(*(np.concatenate([getattr(x, n) for x in (first, second)]) for n in names))


def halves(given: Evidence, rng: np.random.Generator) -> tuple[Evidence, Evidence]:
    """Each prompt's draws dealt into two halves; of a read-out, itself twice."""
    if given.exact:
        return given, given
    counts = given.counts
    first = np.array([rng.multivariate_hypergeometric(row, int(row.sum()) // 2) for row in counts])
    return tuple(
        replace(given, distribution=even(part), draws=part.sum(1).astype(float))
        for part in (first, counts - first)
    )


def floor_bits(given: Evidence, rng: np.random.Generator, deals: int = 20) -> float:
    """Mean `liquidity` after all draws were dealt anew over the prompts, rows and columns keeping
    their sums: the bias of a crystal. Of a read-out 0.
    """
    if given.exact:
        return 0.0
    from scipy import stats

    counts, every, bits = given.counts, np.ones(len(given.distribution)), []
    sizes, table = counts.sum(1), stats.random_table(counts.sum(1), counts.sum(0))
    for part in inf.parts(deals, counts.size, DEALS):
        for dealt in table.rvs(part, random_state=rng):
            bits.append(liquidity(replace(given, distribution=dealt / sizes[:, None]), every))
    return float(np.mean(bits))


# --- the least p-value that any data of a design can reach with so many permutations


def by_chance(log_p: float, permutations: int) -> float:
    """Where a random permutation gives as much with probability exp(log_p)."""
    share = float(np.exp(min(0.0, log_p)))
    return min(1.0, (share * permutations + 1) / (permutations + 1))


def log_factorial(n: Array) -> Array:
    """log n!, elementwise."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, np.max(n) + 1)))])[n]


def relabelled(base: Evidence, permutations: int) -> float:
    """many-distributions: the ways to deal clusters' labels within blocks that give the same groups
    of prompts, of all ways; 1 where no cluster has two prompts, and wording no scatter of its own.
    """
    _, cluster = np.unique(base.clusters, return_inverse=True)
    _, block = np.unique(base.block, return_inverse=True)
    table = np.zeros((block.max() + 1, cluster.max() + 1), int)
    np.add.at(table, (block, cluster), 1)
    if table.sum(0).max() < 2:
        return 1.0
    ways = log_factorial(table.sum(1)).sum() - log_factorial(table).sum()
    _, alike = np.unique(table, axis=1, return_counts=True)
    return by_chance(float(log_factorial(alike).sum() - ways), permutations)


def swapped(base: Evidence, permutations: int) -> float:
    """collapse: one way of 2 ** clusters to swap the checkpoints' names."""
    return by_chance(-len(np.unique(base.clusters)) * float(np.log(2)), permutations)


def chosen(taken: int, among: int, permutations: int) -> float:
    """same-options: one way to choose `taken` options `among` so many."""
    ways = log_factorial(np.array([among, taken, among - taken])) @ [1, -1, -1]
    return by_chance(-float(ways), permutations)


def aligned(tasks: int, contexts: int, permutations: int) -> float:
    """one-seed: one context first in every task, labels dealt anew in each."""
    return by_chance((1 - tasks) * float(np.log(max(contexts, 1))), permutations)


# --- contexts against wordings


def split_information(p: Array) -> dict[str, inf.Estimate]:
    """Liquidity between contexts against that between wordings, in bits, of p (contexts, wordings,
    options), every context in every wording. Intervals leave out a context at a time.

    I(context, wording; answer) = I(context; answer) + I(wording; answer | context), `context` and
    `wording`, the floor. Their ceilings differ, so mean Jensen-Shannon divergences stand beside
    them: `contexts_apart`, of one wording and different contexts; `wordings_apart`, of one context;
    `lead`, the former less the latter.
    """
    one, other = np.triu_indices(p.shape[1], 1)
    inside = np.array([ph.liquidity_bits(mine) for mine in p])
    within = ph.jsd_bits(p[:, one], p[:, other]).mean(1)
    pairs = np.mean([ph.jsd_bits(x[:, None], x[None]) for x in p.swapaxes(0, 1)], 0)
    weights = inf.leave_one_out(np.arange(len(p)))

    def contexts(w: Array) -> Array:
        share = even(w)
        return ((share @ pairs) * share).sum(-1) / (1 - (share**2).sum(-1))

    def wordings(w: Array) -> Array:
        return even(w) @ within

    most = np.log2(p.shape)
    statistics = {
        "context": (lambda w: ph.liquidity_bits(p.mean(1), w), 0.0, most[2]),
        "wording": (lambda w: even(w) @ inside, 0.0, most[1]),
        "contexts_apart": (contexts, 0.0, 1.0),
        "wordings_apart": (wordings, 0.0, 1.0),
        "lead": (lambda w: contexts(w) - wordings(w), -1.0, 1.0),
    }
    return {
        name: inf.estimate(one, weights, low=low, high=high)
        for name, (one, low, high) in statistics.items()
    }
