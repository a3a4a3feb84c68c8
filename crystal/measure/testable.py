"""What could come out at best: the least p-value that any data of a design can reach.

A claim that no data could make hold is not asked: it is *not testable here*, and no member of the
family that Holm's method adjusts. Everything here follows from the design (units, prompts, options,
permutations) and, for a seed's options, from the base alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .adjusting import holm
from .chance import log_factorial
from .evidence import Evidence
from .inference import ALPHA


def by_chance(log_p: float, permutations: int) -> float:
    """The least p-value of `permutations` random draws, of which exp(log_p) give as much."""
    share = float(np.exp(min(0.0, log_p)))
    return min(1.0, (share * permutations + 1) / (permutations + 1))


def many_laws(base: Evidence, permutations: int) -> float:
    """Units' labels dealt anew within each block: as few of the ways to deal them as give the same
    groups of prompts; 1 where no unit has two prompts, so that wording has no scatter of its own.
    """
    _, unit = np.unique(base.units, return_inverse=True)
    _, block = np.unique(base.block, return_inverse=True)
    table = np.zeros((block.max() + 1, unit.max() + 1), int)
    np.add.at(table, (block, unit), 1)
    if table.sum(0).max() < 2:
        return 1.0
    ways = log_factorial(table.sum(1)).sum() - log_factorial(table).sum()
    _, alike = np.unique(table, axis=1, return_counts=True)
    return by_chance(float(log_factorial(alike).sum() - ways), permutations)


def swapped(base: Evidence, permutations: int) -> float:
    """The rungs' names swapped unit by unit: one way of 2 ** units."""
    return by_chance(-len(np.unique(base.units)) * float(np.log(2)), permutations)


def chosen(taken: int, among: int, permutations: int) -> float:
    """`taken` things chosen of `among`: one way of the binomial coefficient."""
    ways = log_factorial(np.array([among, taken, among - taken])) @ [1, -1, -1]
    return by_chance(-float(ways), permutations)


def aligned(tasks: int, contexts: int, permutations: int) -> float:
    """One context first in every task, labels dealt anew in each: contexts ** (1 - tasks)."""
    return by_chance((1 - tasks) * float(np.log(max(contexts, 1))), permutations)


def family(best: Mapping[str, float]) -> set[str]:
    """The tasks on which a claim could hold if every one of them came out at its best.

    Holm's method multiplies by how many tasks there are, so one that could pass alone may not pass
    among others: the hardest goes until all that are left could hold together.
    """
    left = dict(best)
    while left and max(holm(list(left.values()))) > ALPHA:
        del left[max(reversed(left), key=left.get)]
    return set(left)
