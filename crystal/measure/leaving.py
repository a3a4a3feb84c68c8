"""Leaving out one unit at a time: weights of prompts, and the same without writing every row out.

Rows for a thousand prompts are an ordinary array. For more, a row differs from the next in so few
places that totals less each unit's part give what the whole matrix would: memory and time then
grow with the prompts, not with their square.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..ask.prompts import PROMPTS

Array = np.ndarray
NARRATOR = np.array([prompt.narrator for prompt in PROMPTS])  # of every row of `answers`
DENSE = 2**20  # numbers up to which the weights are an array


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Weights (1 + units, prompts), never written out: what a statistic of `leave_one_out` needs.

    Row r weighs prompt j by scale[r] value[j], and the prompts of unit r - 1 by 0; row 0 leaves
    nobody out. It allows `w * mask`, `w / column`, `w ** 2`, `w.sum(-1)` and `w @ answers`.
    """

    member: Array  # (prompts,) the unit of every prompt; `units` stands for a prompt always counted
    units: int
    value: Array  # (prompts,)
    scale: Array  # (1 + units, 1)

    __array_ufunc__ = None  # numpy leaves `array * w` to this class

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.scale), len(self.value)

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, row: int) -> Array:
        return self.scale[row, 0] * np.where(self.member == row - 1, 0.0, self.value)

    def __mul__(self, mask: Array) -> LeftOut:
        return replace(self, value=self.value * mask)

    __rmul__ = __mul__

    def __truediv__(self, column: Array) -> LeftOut:
        return replace(self, scale=self.scale / column)

    def __pow__(self, power: int) -> LeftOut:
        return replace(self, value=self.value**power, scale=self.scale**power)

    def __matmul__(self, answers: Array) -> Array:
        """(1 + units,) or (1 + units, options): for each row the weighted sum over prompts."""
        columns = np.asarray(answers, float).reshape(len(self.value), -1).T
        found = np.empty((len(self), len(columns)))
        for column, out in zip(columns, found.T, strict=True):
            part = self.value * column
            out[0] = part.sum()
            out[1:] = out[0] - np.bincount(self.member, part, self.units + 1)[: self.units]
        found *= self.scale
        return found if np.ndim(answers) > 1 else found[:, 0]

    def sum(self, axis: int = -1, keepdims: bool = False) -> Array:
        """Sum of each row. axis: -1, the prompts."""
        found = self @ np.ones(len(self.value))
        return found[:, None] if keepdims else found


class Stratified(np.ndarray):
    """Rows of `leave_one_out` where units were chosen by strata; `strata`: (units,)."""

    strata: Array | None = None


def leave_one_out(
    units: Array = NARRATOR, among: Array | None = None, strata: Array | None = None
) -> Array | LeftOut:
    """Weights (1 + units, prompts): every prompt, then all but those of each unit in turn.

    Of one unit (1, prompts). An array up to DENSE numbers, beyond that a `LeftOut`.
    among: mask of the prompts that the number is a statistic of, such as the evaluation half;
    the others always count. strata: (prompts,) the group that each unit was chosen from, such as a
    law that so many narrators of the cast hold; the rest of a group stands in for the unit left
    out, so that groups keep their size. Groups of one unit: strata are not used.
    """
    units = np.asarray(units)
    names, member = np.unique(units, return_inverse=True)
    if among is not None:
        taken = np.isin(np.arange(len(names)), member[among])
        place = np.where(taken, np.cumsum(taken) - 1, taken.sum())
        names, member = names[taken], place[member]
    if len(names) < 2:  # without it nobody is left
        return np.ones((1, len(units)))
    if (1 + len(names)) * len(units) > DENSE:
        return LeftOut(member, len(names), np.ones(len(units)), np.ones((1 + len(names), 1)))
    left = (member[None] != np.arange(len(names))[:, None]).astype(float)
    if strata is None or among is not None:
        return np.vstack([np.ones(len(units)), left])
    return _stratified(left, member, np.unique(strata, return_inverse=True)[1])


def _stratified(left: Array, member: Array, group: Array) -> Array:
    of_unit = np.zeros(len(left), int)
    of_unit[member] = group
    size = np.bincount(of_unit)
    if size[of_unit].min() < 2:
        return np.vstack([np.ones(len(member)), left])
    beside = of_unit[:, None] == group
    left *= np.where(beside, (size / np.maximum(size - 1, 1))[group], 1.0)
    found = np.vstack([np.ones(len(member)), left]).view(Stratified)
    found.strata = of_unit
    return found
