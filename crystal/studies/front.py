"""The first page: one task's answers before and after, of a real model and of organisms; verdicts.

Every panel shows the answers that are options, on the prompts that all panels of its row answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from ..measure import chain
from ..measure.claims import THRESHOLDS
from ..present import show, views
from ..present.figures import panels
from ..present.views import Compared
from ..texts import label
from . import later, real
from .phase import liquidity, real_places, real_there, real_title
from .phase_figures import described, heat, ordered, root_scale
from .runs import where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = {"base": "base", "sft": "SFT", "rlvr": "RLVR"}
SHORT = {
    "many-distributions": "base is liquid",
    "collapse": "SFT collapses it",
    "one-seed": "onto one seed of the base",
    "unmixed": "a single one",
    "stays-frozen": "it stays frozen",
    "same-options": "on the seed's options",
    "little-promoted": "little is promoted",
}


def models(readouts: pd.DataFrame, task: str) -> dict[str, Compared]:
    """Title -> its stages on the prompts that all of them answer: the real base, then each ladder
    of `readouts`; a model that answers too few prompts is left out.
    """
    found = {} if (one := of_real(task)) is None else {real_title(): one}
    for ladder, mine in views.each_ladder(readouts):
        found[views.title_of(ladder)] = views.compared(mine, task, *STAGES)
    return {title: one for title, one in found.items() if one.count.measurable}


def of_real(task: str) -> Compared | None:
    """The real base beside SFT and, where these were read, RL; None where no run is there."""
    if not real_there(chain.NUCLEATION):
        return None
    places = real_places(chain.SETTLING if later.read() else chain.NUCLEATION)
    places = {stage: places[stage] for stage in STAGES if stage in places}
    return real.compared(real.read([task]), task, places)


def load(found: Mapping[str, Compared], task: str) -> pd.DataFrame:
    """One row per model (title -> compared), stage and prompt: bits, low, high (liquidity of the
    stage, with its interval), prompt, and a column per option, conditional on an option.

    Prompts in drawing order: those with the same likeliest answer in the base side by side.
    """
    frames = []
    for title, one in found.items():
        for stage, mine in ordered(one, one.tables, task):
            bits = liquidity(one, stage)
            about = {"model": title, "stage": stage, "bits": bits.value}
            frames.append(described(mine, about | {"low": bits.low, "high": bits.high}))
    return pd.concat(frames, ignore_index=True)


def plot(frame: pd.DataFrame) -> Figure:
    """Models down, stages across; in a panel prompts down, options across; its bits above it."""
    models = list(frame["model"].unique())
    options = list(frame.columns[frame.columns.get_loc("prompt") + 1 :])
    fig, axes = panels(len(models), len(STAGES), 1.7)
    norm = root_scale(frame[options])
    for row, model in zip(axes, models, strict=True):
        for ax, stage in zip(row, STAGES, strict=True):
            mine = where(frame, model=model, stage=stage)
            if mine.empty:
                ax.text(0.5, 0.5, "not read", ha="center", va="center", transform=ax.transAxes)
                ax.axis("off")
                continue
            heat(ax, mine[options], norm)
            ax.set(xticks=[])
            ax.set_title(f"{STAGES[stage]}: {show.number(mine['bits'].iloc[0])} bit")
        row[0].set_ylabel(label(model, wide=26))
    ends = [0, len(options) - 1]
    for ax in axes[-1]:
        ax.set_xticks(ends, [options[i] for i in ends])
    return fig


def caption(frame: pd.DataFrame) -> str:
    """Liquidity of every panel in words, plain."""
    models = []
    for model, mine in frame.drop_duplicates(["model", "stage"]).groupby("model", sort=False):
        bits = (f"{STAGES[row.stage]} {show.number(row.bits)}" for row in mine.itertuples())
        models.append(f"{model}: {', '.join(bits)}")
    return "; ".join(models)


def matrix(ladders: Sequence[str]) -> str:
    """Verdicts over all tasks as a MyST table, claims down: the real base, then training runs of
    each ladder. Every cell is quoted from the page that judged it.
    """
    first = [real_title()] if real_there(chain.NUCLEATION) else []
    head, rows = ["", *first, *map(views.title_of, ladders)], []
    for claim in (claim for claims in chain.CLAIMS.values() for claim in claims):
        there = f"{{claim}}`real-base/{claim}-{_judged(claim)}@{real.PARENT}.verdict?`"
        runs = [
            f"{{claim}}`overview/all-{claim}@{name}.verdict?` "
            f"{{claim}}`overview/runs-{claim}@{name}.runs?`"
            for name in ladders
        ]
        cells = [f"{SHORT[claim]} ({THRESHOLDS[claim].phase})", *[there][: len(first)], *runs]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([show.table(head, []), *rows])


def _judged(claim: str) -> str:
    """On what the real base's verdict rests: a base is liquid or not by both wordings."""
    if claim in chain.CLAIMS[chain.SETTLING]:
        return later.RUN
    return f"{real.PLAIN[0]}-both-wordings" if claim == "many-distributions" else real.PLAIN[0]
