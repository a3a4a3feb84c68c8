"""Answers with what they rest on: who was asked, and how many draws are behind each law.

Read-outs and samples take one road: a law read out exactly counts as infinitely many draws, and then every correction below
is zero. From draws, squared distances are unbiased and may come out below 0; liquidity is bias-corrected (`crystal.coverage`).
Knows nothing of tasks, ladders or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import inference as inf
from . import phases as ph
from .errors import CrystalError
from .phases import Array

SELECTION, EVALUATION = "selection", "evaluation"


@dataclass(frozen=True)
class Evidence:
    """The answers of one rung to one task, prompt by prompt; the prompts of a ladder's rungs are the same, in one order."""

    law: Array    # (prompts, options): conditional on answering with an option, rows sum to 1
    units: Array  # (prompts,) who asks: prompts of one unit are no independent evidence
    half: Array   # (prompts,) "selection" or "evaluation", alike within a unit
    block: Array  # (prompts,) prompts that may swap their units if units do not matter: the frame, where it is known
    draws: Array  # (prompts,) how many draws fell on an option; inf: the law was read out

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

    def mask(self, half: str) -> Array:
        return self.half == half


def evidence(answers: Array | Evidence) -> Evidence:
    """Answers to the 100 prompts as `crystal.store.answers` gives them, with the narrators as units; Evidence as it is."""
    if isinstance(answers, Evidence):
        return answers
    return Evidence(answers, inf.NARRATOR, inf.HALF, inf.FRAME, np.full(len(answers), np.inf))


def asked(law: Array, units: Sequence, draws: Array | None = None, block: Array | None = None) -> Evidence:
    """Evidence of any prompts: every second unit, in order of appearance, is of the evaluation half.

    Raises: CrystalError for draws fewer than 2, of which no noise can be told.
    """
    units = np.asarray(units)
    names, first, member = np.unique(units, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[member]
    draws = np.full(len(law), np.inf) if draws is None else np.asarray(draws, float)
    if (draws < 2).any():
        raise CrystalError(f"prompt {int(np.argmin(draws))} has {draws.min():.0f} draws on an option; one shows no scatter",
                           mend="draw more, or leave that prompt out")
    half = np.where(place % 2 == 0, SELECTION, EVALUATION)
    return Evidence(np.asarray(law, float), units, half, np.zeros(len(law)) if block is None else np.asarray(block), draws)


def _even(given: Evidence, w: Array) -> Array:
    return w / w.sum(-1, keepdims=True)


def spread(given: Evidence, w: Array) -> Array:
    """`phases.spread` less what sampling adds: E[MSE(p^_i, p^_j)] = MSE(p_i, p_j) + noise_i + noise_j. w: (..., prompts)."""
    even = _even(given, w)
    return ph.spread(given.law, w) - ph.ratio(2 * (even * (1 - even)) @ given.noise, 1 - (even**2).sum(-1))


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


def halves(row: Array, draws: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Two laws of one prompt from draws of their own, each half of them, dealt without replacement; of a read-out, itself twice.

    What is chosen on a sample looks better there than it is: choose on the one, score on the other.
    """
    if np.isinf(draws):
        return row, row
    counts = np.round(row * draws).astype(np.int64)
    first = rng.multivariate_hypergeometric(counts, int(counts.sum()) // 2)
    rest = counts - first
    return first / first.sum(), rest / rest.sum()
