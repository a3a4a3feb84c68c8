"""The one rule that turns a number into a verdict: for pages, experiments, the overview and tables of foreign ladders alike.

`crystal.measure.marks` has the figure each number must pass; `judge` is the only place where a verdict is decided.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .inference import ALPHA, Estimate, Null
from .marks import MARKS, Mark


@dataclass(frozen=True)
class Verdict:
    """One claim on one ladder and task. `p` is the larger of the p-values against the mark and against the null."""

    claim: str
    verdict: str  # one of `crystal.measure.chain.VERDICTS`
    reason: str
    estimate: Estimate
    null: Null | None
    chance: float | None  # what the null makes of the number itself, where that can be said
    p: float
    p_against: float  # small: the number lies on the wrong side of the mark

    @property
    def mark(self) -> Mark:
        return MARKS[self.claim]

    def fields(self) -> dict:
        """What `show.claim` records; a number that does not exist is None."""
        numbers = {"number": self.estimate.value, "low": self.estimate.low,
                   "high": self.estimate.high, "here": self.estimate.here, "null": self.chance}
        said = {"verdict": self.verdict, "mark": self.mark.mark, "sentence": self.sentence()}
        return said | {name: finite(x) for name, x in numbers.items()}

    def sentence(self) -> str:
        """The number, its interval, its null and the mark, in words."""
        if np.isnan(self.estimate.value):
            return f"{self.mark.number}: {self.reason}."
        show = percent if self.mark.percent else plain
        low, high = self.estimate.low, self.estimate.high
        scatter = f" [{show(low)}, {show(high)}]" if low < high else ""
        here = "" if finite(self.estimate.here) is None else f" (here {show(self.estimate.here)})"
        text = (f"{self.mark.number} is {show(self.estimate.value)}{scatter}{here}, "
                f"to be {self.mark.side} {show(self.mark.mark)}")
        if self.null:
            by_chance = "" if finite(self.chance) is None else f" (where it would be {show(self.chance)})"
            text += f"; against {self.null.name}{by_chance}, p = {self.null.p:.2g}"
        return f"{text}; {self.reason}."


def plain(number: float) -> str:
    """Three digits; what lies over exactly nothing is without end."""
    return f"{number:.3g}" if np.isfinite(number) else "∞"


def percent(share: float) -> str:
    """Whole per cent, but two digits below ten."""
    if not np.isfinite(share):
        return "∞"
    return f"{100 * share:.0f} %" if abs(share) >= 0.0995 else f"{100 * share:.2g} %"


def finite(x: float | None) -> float | None:
    return None if x is None or not np.isfinite(x) else float(x)


def judge(claim: str, estimate: Estimate, null: Null | None = None, *, chance: float | None = None,
          nothing: str = "the number does not exist") -> Verdict:
    """THE rule. Holds: the number passes the mark *and* beats its null, both at ALPHA. Fails: it is beyond the mark on
    the wrong side, at ALPHA. Undecided: neither.

    A claim with two parts holds only if both do, so its p-value is the larger of the two: the chance that a claim is
    called holding while either part is false is ALPHA, as far as intervals cover (simulated: page `validation`). nothing: why
    there may be no number.
    """
    mark = MARKS[claim]
    p_mark = estimate.p_beyond(mark.mark, mark.side)
    p_null = null.p if null else 0.0
    p_against = estimate.p_beyond(mark.mark, "below" if mark.side == "above" else "above")
    if np.isnan(estimate.value):
        verdict, reason = "undecided", nothing
    elif max(p_mark, p_null) <= ALPHA:
        verdict, reason = "holds", "the mark is passed" + (" and chance excluded" if null else "")
    elif p_against <= ALPHA:
        verdict, reason = "fails", "the whole interval is on the wrong side of the mark"
    elif p_mark <= ALPHA:
        verdict, reason = "undecided", "chance alone may give as much"
    else:
        verdict, reason = "undecided", "the interval reaches across the mark"
    return Verdict(claim, verdict, reason, estimate, null, chance, float(max(p_mark, p_null)), float(p_against))
