"""The one place where rows of read-outs become arrays to be measured: only answered prompts, and of
those compared only what every one of them answers.

`compared` finds these prompts and gives their laws; `answers` takes all prompts and refuses one
that is not answered, so that no number rests on it unseen. Prompts stay in the order in which they
were asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ..ask.prompts import PROMPTS, Prompt
from ..errors import CrystalError
from ..lab.world import temperament_of
from ..measure import answered
from ..measure.evidence import Evidence
from ..measure.inference import leave_one_out

_READ = ("stage", "form", "temperature", "prompt", "probability")
Place = str | tuple[str, str]  # a rung in its native form, or a rung and a form


def answers(
    frame: pd.DataFrame,
    rung: str,
    task: str,
    form: str | None = None,
    *,
    prompts: Sequence[Prompt] = PROMPTS,
    temperature: float = 1.0,
) -> np.ndarray:
    """Shape (prompts, options): how `rung` answers `task`, given that it answers with an option.

    Rows in the order of prompts. frame: of one ladder, from `store.load_readouts`. form=None: the
    rung's native form, raw text for a base, chat once tuned.
    Raises: CrystalError if any of the prompts is missing, or not answered (`measure.answered`).
    """
    table = unconditional(frame, rung, task, form, prompts=prompts, temperature=temperature)
    mass = table.sum(axis=1)
    if len(low := np.flatnonzero(~answered.answers(mass))):
        least = int(mass.argmin())
        raise CrystalError(
            f"{len(low)} of {len(mass)} prompts are not answered, least {prompts[least].id}: "
            f"{mass[least]:.2g} of the mass is on an option",
            where=f"rung {rung}, task {task}",
            mend="choose another task or form",
        )
    return table / mass[:, None]


def unconditional(
    frame: pd.DataFrame,
    rung: str,
    task: str,
    form: str | None = None,
    *,
    prompts: Sequence[Prompt] = PROMPTS,
    temperature: float = 1.0,
) -> np.ndarray:
    """(prompts, options): probabilities as they were read, whatever their sum; else as
    `answers`.
    """
    places = np.flatnonzero((frame["rung"] == rung).to_numpy() & (frame["task"] == task).to_numpy())
    rows = {name: frame[name].to_numpy()[places] for name in _READ}
    form = form or ("completion" if set(rows["stage"]) == {"base"} else "chat")
    ladder = frame["ladder"].iloc[0] if len(frame) else ""
    where = f"{ladder}, rung {rung}, task {task}, form {form}"
    if (frame["ladder"].to_numpy() != ladder).any():
        raise CrystalError(
            "the frame holds several ladders",
            where=where,
            mend="select one: frame[frame.ladder == ...]",
        )
    asked = (rows["form"] == form) & (rows["temperature"] == temperature)
    wanted = [prompt.id for prompt in prompts]
    laws = dict(zip(rows["prompt"][asked], rows["probability"][asked], strict=True))
    if absent := [prompt for prompt in wanted if prompt not in laws]:
        what = f"{len(absent)} of {len(wanted)} prompts are missing, first {absent[0]}"
        raise CrystalError(what, where=where, mend=f"make resample LADDER={ladder}")
    return np.stack([laws[prompt] for prompt in wanted])


@dataclass(frozen=True, eq=False)
class Compared:
    """One task on the prompts that all of some checkpoints answer; arrays have these prompts' rows
    only.
    """

    prompts: tuple[Prompt, ...]
    rows: np.ndarray  # (prompts,) their places among those that were asked
    tables: Mapping[Place, np.ndarray]  # (prompts, options), unconditional
    counts: Mapping[Place, answered.Count]  # of every checkpoint by itself
    count: answered.Count  # of all of them together

    def laws(self, place: Place) -> np.ndarray:
        """(prompts, options), conditional on an option."""
        table = self.tables[place]
        return table / table.sum(axis=1, keepdims=True)

    def evidence(self, place: Place) -> Evidence:
        """The same with what it rests on."""
        law = self.laws(place)
        draws = np.full(len(law), np.inf)
        return Evidence(law, self.units, self.half, self.frames, draws, self.strata)

    @cached_property
    def units(self) -> np.ndarray:
        """(prompts,) who asks."""
        return np.array([prompt.narrator for prompt in self.prompts])

    @cached_property
    def half(self) -> np.ndarray:
        return np.array([prompt.half for prompt in self.prompts])

    @cached_property
    def frames(self) -> np.ndarray:
        return np.array([prompt.wording for prompt in self.prompts])

    @cached_property
    def strata(self) -> np.ndarray | None:
        """(prompts,) the cast is balanced: so many narrators of each temperament were chosen. None
        for the natural prompts, whose contexts are of no groups.
        """
        if not all(isinstance(prompt, Prompt) for prompt in self.prompts):
            return None
        return np.array([temperament_of(prompt.narrator) for prompt in self.prompts])

    @cached_property
    def weights(self) -> np.ndarray:
        """(1 + units, prompts): all, then one narrator left out at a time."""
        return leave_one_out(self.units, strata=self.strata)


def compared(
    readouts: pd.DataFrame,
    task: str,
    *places: Place,
    prompts: Sequence[Prompt] = PROMPTS,
    temperature: float = 1.0,
) -> Compared:
    """`task` on the prompts that every place answers. readouts: of one ladder, from
    `store.load_readouts`.

    Raises: CrystalError for a prompt that was not read.
    """
    tables = {}
    for place in places:
        rung, form = place if isinstance(place, tuple) else (place, None)
        tables[place] = unconditional(
            readouts, rung, task, form, prompts=prompts, temperature=temperature
        )
    return of_tables(tables, prompts)


def of_tables(tables: Mapping[Place, np.ndarray], prompts: Sequence[Prompt] = PROMPTS) -> Compared:
    """The same of tables of any ladders, each (prompts, options), unconditional."""
    masses = {place: table.sum(axis=1) for place, table in tables.items()}
    rows = np.flatnonzero(answered.both(*masses.values()))
    return Compared(
        tuple(prompts[row] for row in rows),
        rows,
        {place: table[rows] for place, table in tables.items()},
        {place: answered.count(of) for place, of in masses.items()},
        answered.count(*masses.values()),
    )
