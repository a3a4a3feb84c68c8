"""Liquidity between contexts against liquidity between wordings, where the two are crossed.

`laws` is (contexts, wordings, options): the law of the answer given that it is an option. Every
context is put in every wording, so the information that a prompt carries about the answer splits:

    I(context, wording; answer) = I(context; answer) + I(wording; answer | context)

The second term is the floor: what wordings do while the context stays the same. A context is the
unit of evidence: all intervals leave out one context at a time. The terms have different ceilings,
log2 of the number of contexts and of wordings, so the like for like comparison is one of pairs: two
prompts that differ in their context only, and two that differ in their wording only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import CrystalError
from .inference import Estimate, estimate
from .leaving import leave_one_out
from .phases import Array, jsd_bits, liquidity_bits, mean_law


@dataclass(frozen=True, eq=False)
class Crossed:
    """The estimates, each with its 95 % interval over contexts, in bits.

    Raises: CrystalError for fewer than three contexts, one wording, or rows that are no laws.
    """

    laws: Array  # (contexts, wordings, options)

    def __post_init__(self) -> None:
        if self.laws.ndim != 3 or self.laws.shape[0] < 3 or self.laws.shape[1] < 2:
            raise CrystalError(f"laws of shape {self.laws.shape} are not crossed",
                               mend="give three contexts or more, each in two wordings or more")
        if not np.allclose(self.laws.sum(-1), 1, atol=1e-6) or (self.laws < 0).any():
            raise CrystalError("a law does not sum to 1", mend="divide by the answered mass")

    @cached_property
    def context(self) -> Estimate:
        """I(context; answer): how much the context tells of the answer, over all wordings."""
        return self._estimate(self._context, high=np.log2(self.laws.shape[2]))

    @cached_property
    def wording(self) -> Estimate:
        """I(wording; answer | context): the floor."""
        return self._estimate(self._wording, high=np.log2(self.laws.shape[1]))

    @cached_property
    def contexts_apart(self) -> Estimate:
        """Mean Jensen-Shannon divergence of two prompts of one wording and different contexts."""
        return self._estimate(self._contexts_apart)

    @cached_property
    def wordings_apart(self) -> Estimate:
        """Mean Jensen-Shannon divergence of two prompts of one context and different wordings."""
        return self._estimate(self._wordings_apart)

    @cached_property
    def lead(self) -> Estimate:
        """`contexts_apart` less `wordings_apart`: above 0 where the context matters more."""
        return self._estimate(lambda w: self._contexts_apart(w) - self._wordings_apart(w), low=-1.0)

    def _estimate(self, statistic, low: float = 0.0, high: float = 1.0) -> Estimate:
        return estimate(statistic, leave_one_out(np.arange(len(self.laws))), low=low, high=high)

    def _context(self, weights: Array) -> Array:
        return liquidity_bits(self.laws.mean(1), weights)

    def _wording(self, weights: Array) -> Array:
        inside = np.array([liquidity_bits(mine) for mine in self.laws])
        return mean_law(inside[:, None], weights)[..., 0]

    def _wordings_apart(self, weights: Array) -> Array:
        first, second = np.triu_indices(self.laws.shape[1], 1)
        apart = jsd_bits(self.laws[:, first], self.laws[:, second]).mean(1)
        return mean_law(apart[:, None], weights)[..., 0]

    @cached_property
    def _pairs(self) -> Array:
        """(contexts, contexts): divergence of two contexts' laws, mean over wordings."""
        tables = self.laws.swapaxes(0, 1)
        return np.mean([jsd_bits(mine[:, None], mine[None]) for mine in tables], 0)

    def _contexts_apart(self, weights: Array) -> Array:
        share = weights / weights.sum(-1, keepdims=True)
        return ((share @ self._pairs) * share).sum(-1) / (1 - (share**2).sum(-1))
