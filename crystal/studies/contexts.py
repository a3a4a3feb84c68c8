"""Liquidity between contexts against liquidity between wordings, read by natural prompts.

A context counts where both of its wordings are answered: what is conditional on a thousandth of the
mass says nothing. How many count stands beside every number.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..ask.natural import WORDINGS
from ..measure.answered import answers, count
from ..measure.crossed import Crossed

FEWEST = 10  # contexts that must count: with fewer there is no number
_PLACE = ["ladder", "rung", "form", "task"]
_NUMBERS = ("context", "wording", "contexts_apart", "wordings_apart", "lead")


def crossed(rows: pd.DataFrame) -> np.ndarray:
    """Laws (contexts that count, wordings, options) of one checkpoint, form and task.

    rows: of `crystal.keep.store.load_readouts`, read by natural prompts.
    """
    mass = rows["probability"].map(np.sum)
    answered = rows[answers(mass)].sort_values(["narrator", "frame"])
    whole = answered.groupby("narrator")["frame"].transform("size") == WORDINGS
    found = np.stack([np.zeros_like(rows["probability"].iloc[0]), *answered["probability"][whole]])
    return _laws(found[1:]).reshape(-1, WORDINGS, found.shape[1])


def _laws(probability: np.ndarray) -> np.ndarray:
    return probability / probability.sum(-1, keepdims=True)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each ladder, rung, form and task of `frame`: numbers in bits with intervals.

    Columns: ladder, rung, form, task, answered (median mass), prompts (answered, of all), contexts
    (that count), left_open (largest mass that a read-out left unresolved), and each number of
    `crystal.measure.crossed` as name, name_low, name_high; nan where the task is not measurable
    (`crystal.measure.answered`) or fewer than FEWEST contexts count.
    """
    return pd.DataFrame(
        [
            dict(zip(_PLACE, place, strict=True)) | _row(rows)
            for place, rows in frame.groupby(_PLACE, sort=False)
        ]
    )


def _row(rows: pd.DataFrame) -> dict[str, float]:
    mass, laws = rows["probability"].map(np.sum), crossed(rows)
    asked = count(mass.to_numpy())
    found = {"answered": asked.median, "prompts": asked.answered}
    found |= {"contexts": len(laws), "left_open": rows["unresolved"].max()}
    numbers = Crossed(laws) if asked.measurable and len(laws) >= FEWEST else None
    for name in _NUMBERS:
        number = getattr(numbers, name, None)
        found |= {
            name + end: getattr(number, what, np.nan)
            for end, what in (("", "value"), ("_low", "low"), ("_high", "high"))
        }
    return found
