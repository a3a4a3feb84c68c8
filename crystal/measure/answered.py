"""Answered or not: which prompts count, and whether enough of them do. One rule for pages, tables
and comparisons.

A law is conditional on an option. Where a thousandth of the mass is on an option, that law says
what a model would choose if it did what it hardly ever does; a few such prompts look like a
crystal. So a prompt that is not answered counts for nothing but their number, and a task that too
few prompts answer has no numbers there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .inference import NOTHING
from .judging import Verdict
from .phases import Array

LEAST = 0.2  # mass on the options from which on a prompt is answered
FEWEST = 50  # prompts that must answer, where more were asked
NOT_MEASURABLE = "not-measurable"


def answers(mass: Array) -> Array:
    """Which prompts are answered, bool, the shape of `mass`: the sum of the options' probabilities,
    before any division.
    """
    return np.asarray(mass, float) >= LEAST


def both(*masses: Array) -> Array:
    """(prompts,) which prompts every one of the compared checkpoints answers. masses: each
    (prompts,).
    """
    return np.logical_and.reduce([answers(mass) for mass in masses])


def needed(asked: int) -> int:
    """How many prompts must be answered: FEWEST; where no more than that were asked, half of them.

    Two halves of 25 are what a seed is chosen and scored by. A probe of twenty, or one wording of
    each context, was never meant to give that: there the rule only keeps a task from resting on the
    minority that still answers.
    """
    return FEWEST if asked > FEWEST else (asked + 1) // 2


@dataclass(frozen=True)
class Count:
    """How many prompts a checkpoint, or each of several, answered; and the median over prompts of
    the mass answered.
    """

    answered: int
    asked: int
    median: float  # of the checkpoint that answers least, where several are compared

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


def no_verdicts(claims: Sequence[str], found: Count) -> list[Verdict]:
    """The verdicts on claims that too few prompts answer: no number, and the reason."""
    return [
        Verdict(claim, NOT_MEASURABLE, found.why, NOTHING, None, None, 1.0, 1.0) for claim in claims
    ]
