"""Answers with what they rest on: who was asked, and how many draws are behind each law.

Read-outs and samples take one road: a law read out exactly counts as infinitely many draws, and then every correction below
is zero. From draws, squared distances are unbiased and may come out below 0; liquidity is bias-corrected
(`crystal.measure.coverage`). Knows nothing of tasks, ladders or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import CrystalError
from . import inference as inf
from . import phases as ph
from .phases import Array

SELECTION, EVALUATION = "selection", "evaluation"
FEWEST = 4  # draws on an option in a prompt


@dataclass(frozen=True)
class Evidence:
    """The answers of one rung to one task, prompt by prompt; the prompts of a ladder's rungs are the same, in one order."""

    law: Array    # (prompts, options): conditional on answering with an option, rows sum to 1
    units: Array  # (prompts,) who asks: prompts of one unit are no independent evidence
    half: Array   # (prompts,) "selection" or "evaluation", alike within a unit
    block: Array  # (prompts,) prompts that may swap their units if units do not matter: the frame, where it is known
    draws: Array  # (prompts,) how many draws fell on an option; inf: the law was read out
    strata: Array | None = None  # (prompts,) the group that each unit was chosen from, if any

    @property
    def exact(self) -> bool:
        return bool(np.isinf(self.draws).all())

    @property
    def counts(self) -> Array:
        """(prompts, options) whole numbers; of draws only."""
        return np.round(self.law * self.draws[:, None]).astype(np.int64)

    @property
    def noise(self) -> Array:
        """(prompts,) expected MSE of a row to its own law, sum p (1 - p) / (K (n - 1)): unbiased; 0 for a read-out."""
        with np.errstate(divide="ignore"):
            return np.where(np.isinf(self.draws), 0.0, (1 - (self.law**2).sum(-1)) / (self.law.shape[1] * (self.draws - 1)))

    @property
    def weights(self) -> Array | inf.LeftOut:
        """(1 + units, prompts): `inference.leave_one_out` of this design."""
        return inf.leave_one_out(self.units, strata=self.strata)

    def mask(self, half: str) -> Array:
        return self.half == half


def evidence(answers: Array | Evidence) -> Evidence:
    """Answers to the 100 prompts as `crystal.present.answering.answers` gives them, with the narrators
    as units; Evidence as it is.
    """
    if isinstance(answers, Evidence):
        return answers
    return Evidence(answers, inf.NARRATOR, inf.HALF, inf.FRAME, np.full(len(answers), np.inf))


def asked(law: Array, units: Sequence, draws: Array | None = None, block: Array | None = None) -> Evidence:
    """Evidence of any prompts: every second unit, in order of appearance, is of the evaluation half.

    Raises: CrystalError for draws fewer than FEWEST, which cannot be halved and their noise told.
    """
    units = np.asarray(units)
    names, first, member = np.unique(units, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[member]
    draws = np.full(len(law), np.inf) if draws is None else np.asarray(draws, float)
    if (draws < FEWEST).any():
        first = int(np.argmin(draws))
        raise CrystalError(f"prompt {first} has {draws[first]:.0f} draws on an option, and {FEWEST} are needed: half "
                           "choose, half score, and one shows no scatter", mend="draw more, or leave that prompt out")
    half = np.where(place % 2 == 0, SELECTION, EVALUATION)
    return Evidence(np.asarray(law, float), units, half, np.zeros(len(law)) if block is None else np.asarray(block), draws)


def _even(given: Evidence, w: Array) -> Array:
    return w / w.sum(-1, keepdims=True)


def spread(given: Evidence, w: Array) -> Array:
    """`phases.spread` less what sampling adds: E[MSE(p^_i, p^_j)] = MSE(p_i, p_j) + noise_i + noise_j. w: (..., prompts)."""
    even = _even(given, w)
    squares = even**2
    return ph.spread(given.law, w) - ph.ratio(
        2 * (even @ given.noise - squares @ given.noise), 1 - squares.sum(-1)
    )


def mean_noise(given: Evidence, w: Array) -> Array:
    """Expected MSE of the weighted mean law to the same mean of the prompts' own laws: sum w_i^2 noise_i."""
    return _even(given, w) ** 2 @ given.noise


def distance(first: Evidence, second: Evidence, w: Array) -> Array:
    """MSE of two rungs' mean laws less what sampling adds."""
    return ph.mse(ph.mean_law(first.law, w), ph.mean_law(second.law, w)) - mean_noise(first, w) - mean_noise(second, w)


def liquidity(given: Evidence, w: Array) -> Array:
    """`phases.liquidity_bits`; from draws with the entropies of Chao, Wang and Jost (2013).

    Of the mean law, whose rows may have unequal draws, the correction is that of the pooled counts.
    """
    if given.exact:
        return ph.liquidity_bits(given.law, w)
    from . import coverage  # here: read-outs do without it, and without scipy

    counts, even = given.counts, _even(given, w)
    pooled = w @ counts
    correction = coverage.chao_wang_jost(pooled) - coverage.plug_in(pooled)
    return ph.entropy_bits(even @ given.law) + correction - even @ coverage.chao_wang_jost(counts)


def together(first: Evidence, second: Evidence) -> Evidence:
    """The prompts of two rungs stacked, (2 prompts): for nulls that swap their names."""
    return Evidence(*(np.concatenate([getattr(x, name) for x in (first, second)])
                      for name in ("law", "units", "half", "block", "draws")))


def halves(given: Evidence, rng: np.random.Generator) -> tuple[Evidence, Evidence]:
    """Each prompt's draws dealt into two halves without replacement; of a read-out, itself twice.

    What is chosen on a sample looks better there than it is: choose on the one, score on the other.
    """
    if given.exact:
        return given, given
    counts = given.counts
    first = np.array([rng.multivariate_hypergeometric(row, int(row.sum()) // 2) for row in counts])
    return tuple(replace(given, law=part / part.sum(1, keepdims=True), draws=part.sum(1).astype(float))
                 for part in (first, counts - first))


def floor_bits(given: Evidence, rng: np.random.Generator, deals: int = 20) -> float:
    """Mean `liquidity`, in bits, after all draws were dealt out anew over the prompts: the bias of a crystal with these draws.

    Next to nothing, unless a prompt has no more draws than there are options; of a read-out 0.
    """
    if given.exact:
        return 0.0
    sizes, every = given.counts.sum(1), np.ones(len(given.law))
    return float(np.mean([liquidity(replace(given, law=hands / sizes[:, None]), every)
                          for hands in inf.dealt(given.counts, deals, rng)]))
