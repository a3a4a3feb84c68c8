"""One claim on many tasks: what holds by itself holds among so many only if Holm's adjusted p-value says so.

Apart from `judging`, so that one claim can be tried on ladders of known truth without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from .inference import ALPHA
from .judging import Verdict


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values (n,): reject those at most alpha, and the chance of any false rejection is at most alpha.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979), 65-70: the smallest p is multiplied by n, the next one by n - 1,
    and so on, and none falls below one that was smaller. (Ours, for statsmodels collects the garbage of the whole process at
    every call: more than half of the time of a ladder's survey.)
    """
    order, adjusted = np.argsort(p, kind="stable"), np.empty(len(p))
    steps = np.asarray(p, float)[order] * np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def adjust(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of one claim on all tasks of a ladder, with Holm's adjusted p-values, both ways.

    What no longer reaches ALPHA becomes undecided.
    """
    judged = []
    for v, p, against in zip(verdicts, holm([v.p for v in verdicts]), holm([v.p_against for v in verdicts]), strict=True):
        new = dataclasses.replace(v, p=float(p), p_against=float(against))
        if (v.verdict == "holds" and p > ALPHA) or (v.verdict == "fails" and against > ALPHA):
            reason = f"it {v.verdict} by itself, but not beyond doubt among so many tasks"
            new = dataclasses.replace(new, verdict="undecided", reason=reason)
        judged.append(new)
    return judged
