"""The first page: one task's answers before and after, of a real model and of organisms; verdicts.

Every panel shows the answers that are options, on the prompts that all panels of its row answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.ladders import ladder_names, load_ladder
from ..ask.prompts import CHAT, COMPLETION
from ..ask.tasks import TASKS
from ..measure import chain, inference
from ..measure import quantities as ph
from ..measure.claims import MARKS
from ..present import show, views
from ..present.figures import panels
from ..present.views import Compared
from ..texts import label
from . import later, real

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = {"base": "base", "sft": "SFT", "rlvr": "RLVR"}
SHORT = {
    "many-laws": "base is liquid",
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
    found = {} if (one := of_real(task)) is None else {load_ladder(real.PARENT).title: one}
    for ladder, mine in views.each_ladder(readouts):
        found[views.title_of(ladder)] = views.compared(mine, task, *STAGES)
    return {title: one for title, one in found.items() if one.count.measurable}


def _is_there() -> bool:
    return {real.PARENT, real.EXPERIMENT} <= {*ladder_names()}


def of_real(task: str) -> Compared | None:
    """The real base beside SFT and, where these were read, RL; None where no run is there."""
    if not _is_there():
        return None
    if later.read():
        ends = later.rungs()
        tuned = {stage: (ends[stage].name, CHAT) for stage in ("sft", "rlvr")}
    else:
        tuned = {"sft": (real.ends()[real.PLAIN[0]].name, CHAT)}
    return real.compared(real.read([task]), task, {"base": ("base", COMPLETION)} | tuned)


def load(found: Mapping[str, Compared], task: str) -> pd.DataFrame:
    """One row per model (title -> compared), stage and prompt: bits, low, high (liquidity of the
    stage, with its interval), prompt, and a column per option, conditional on an option.

    Prompts in drawing order: those with the same likeliest answer in the base side by side.
    """
    frames = []
    for title, one in found.items():
        base = one.laws("base")
        order = np.lexsort((-base.max(1), base.argmax(1)))
        for stage in one.tables:
            bits = _liquidity(one, stage)
            place = {"model": title, "stage": stage, "bits": bits.value}
            place |= {"low": bits.low, "high": bits.high}
            place |= {"prompt": [one.prompts[i].id for i in order]}
            laws = pd.DataFrame(one.laws(stage)[order], columns=list(TASKS[task].options))
            frames.append(pd.concat([pd.DataFrame(place), laws], axis=1))
    return pd.concat(frames, ignore_index=True)


def _liquidity(one: Compared, stage: str) -> inference.Estimate:
    laws = one.laws(stage)
    return inference.estimate(lambda w: ph.liquidity_bits(laws, w), one.weights, low=0)


def plot(frame: pd.DataFrame) -> Figure:
    """Models down, stages across; in a panel prompts down, options across; its bits above it."""
    from matplotlib.colors import PowerNorm

    models = list(frame["model"].unique())
    options = list(frame.columns[frame.columns.get_loc("prompt") + 1 :])
    fig, axes = panels(len(models), len(STAGES), 1.7)
    norm = PowerNorm(0.5, 0, frame[options].to_numpy().max())  # small probabilities stay visible
    for row, model in zip(axes, models, strict=True):
        for ax, stage in zip(row, STAGES, strict=True):
            mine = frame[(frame["model"] == model) & (frame["stage"] == stage)]
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
            if mine.empty:
                ax.text(0.5, 0.5, "not read", ha="center", va="center", transform=ax.transAxes)
                continue
            ax.imshow(mine[options], aspect="auto", norm=norm, cmap="cividis", interpolation="none")
            ax.set_title(f"{STAGES[stage]}: {show.number(mine['bits'].iloc[0])} bit")
        row[0].set_ylabel(label(model, wide=26))
    ends = [0, len(options) - 1]
    for ax in axes[-1]:
        ax.set_xticks(ends, [options[i] for i in ends])
    return fig


def told(frame: pd.DataFrame) -> str:
    """Liquidity of every panel in words, plain."""
    each = frame.drop_duplicates(["model", "stage"])
    return "; ".join(
        f"{model}: "
        + ", ".join(f"{STAGES[row.stage]} {show.number(row.bits)}" for row in mine.itertuples())
        for model, mine in each.groupby("model", sort=False)
    )


def matrix(ladders: Sequence[str]) -> str:
    """Verdicts over all tasks as a MyST table, claims down: the real base, then training runs of
    each ladder. Every cell is quoted from the page that judged it.
    """
    first = [load_ladder(real.PARENT).title] if _is_there() else []
    head, rows = ["", *first, *map(views.title_of, ladders)], []
    for claim in (claim for claims in chain.CLAIMS.values() for claim in claims):
        there = f"{{claim}}`real-base/{claim}-{_judged(claim)}@{real.PARENT}.verdict?`"
        runs = [
            f"{{claim}}`overview/all-{claim}@{name}.verdict?` "
            f"{{claim}}`overview/runs-{claim}@{name}.sentence?`"
            for name in ladders
        ]
        rows.append([f"{SHORT[claim]} ({MARKS[claim].phase})", *[there][: len(first)], *runs])
    lines = [show.table(head, []), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def _judged(claim: str) -> str:
    """On what the real base's verdict rests: a base is liquid or not by both wordings."""
    if claim in chain.CLAIMS[chain.SETTLING]:
        return later.RUN
    return f"{real.PLAIN[0]}-both-wordings" if claim == "many-laws" else real.PLAIN[0]
