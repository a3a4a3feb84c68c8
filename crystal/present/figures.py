"""What figures share, and those of the phase pages: `load_x` is the frame drawn, `plot_x` draws it.

`readouts` is a frame of `crystal.keep.store.load_readouts`, of one or several ladders; ladders
stand in rows of panels. Probabilities are drawn as the model gave them, with the mass of answers
that are no option (invalid-answer) and that the walk left open (residual) beside them. Colours:
Okabe-Ito, cividis. matplotlib is loaded when something is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.prompts import PROMPTS
from ..ask.tasks import TASKS
from ..measure import claims
from ..measure import inference as inf
from ..measure import quantities as ph
from ..measure.claims import QUANTILE
from ..texts import label
from .labels import name_lines
from .views import LEFTOVER, NATIVE, compared, each_ladder, estimated, given, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito: for the colour-blind, too
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW, GREY = "#56B4E9", "#D55E00", "#F0E442", "#767c85"
HUES = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW, GREY)
COLOURS = {"base": GREY, "seed": ORANGE, "sft": BLUE, "dpo": PURPLE, "rlvr": GREEN, "chance": GREY}
WIDTH = 4.2  # inches: a column of print, which a telephone shows whole
LETTER, LINE = 0.062, 0.125  # inches that a letter and a line of the smallest text take
INK, PAPER = "#000001", "#fffffe"  # on coloured cells: the same on a light and a dark page
MARKERS = {"base": "s", "sft": "o", "dpo": "^", "rlvr": "D"}
Seeds = Mapping[str, str]  # ladder -> the persona whom tasks of other kinds name as the seed


def panels(
    rows: int, columns: int, height: float, width: float = 0.0, **shared
) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns axes, each row `height` inches high, WIDTH or `width` inches wide.

    pyplot does not know it.
    """
    from matplotlib.figure import Figure

    fig = Figure(figsize=(max(WIDTH, width), height * rows), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **shared)


def each_panel(
    frame: pd.DataFrame, height: float, *, down: bool = False, **shared
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure, and for each ladder of `frame` its panel, titled, with its rows."""
    n = frame["ladder"].nunique()
    down |= n > 2
    fig, axes = panels(n if down else 1, 1 if down else n, height, **shared)
    pairs = list(zip(axes.flat, (mine for _, mine in each_ladder(frame)), strict=True))
    for ax, mine in pairs:
        ax.set_title(label(title_of(mine["ladder"].iloc[0]), wide=60 if down else 60 // n))
    return fig, pairs


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name the rows 0, 1, ... from the top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


def legend(fig: Figure) -> Figure:
    """Each name once: on the lines where there is room for all of them, else above all panels."""
    pairs = (zip(*ax.get_legend_handles_labels(), strict=True) for ax in fig.axes)
    found = {name: handle for each in pairs for handle, name in each}
    if name_lines(fig, found):
        return fig
    names, columns = list(found), len(found)
    while columns > 1 and fig.get_figwidth() < sum(
        LETTER * max(map(len, part)) + 0.4 for part in np.array_split(names, columns)
    ):
        columns -= 1
    fig.legend(found.values(), names, loc="outside upper center", ncols=max(1, columns))
    return fig


def _option_ticks(
    ax: Axes, options: Sequence[str], at: Sequence[float], rest: Sequence, room: float
) -> None:
    """Name options along x, every so many if `room` inches are not enough, and the leftovers."""
    longest = max(map(len, options))
    wide = LINE if longest > 2 else LETTER * (longest + 0.5)
    step = int(np.ceil(len(options) * wide / room))
    ax.set_xticks([*at[::step], *rest], [*options[::step], *LEFTOVER], rotation=90)
    ax.grid(False, axis="x")


# -- liquid


def load_pairs(readouts: pd.DataFrame, task: str) -> pd.DataFrame:
    """Share of pairs of base prompts at most `tv` apart: of one persona, and of two."""
    x, frames = np.linspace(0, 1, 101), []
    for ladder, mine in each_ladder(readouts):
        alone = compared(mine, task, "base")
        p, (i, j) = alone.distributions("base"), np.triu_indices(len(alone.prompts), 1)
        alike, apart = alone.clusters[i] == alone.clusters[j], ph.tv(p[i], p[j])
        for pair, chosen in (("one persona, two templates", alike), ("two personas", ~alike)):
            share = np.searchsorted(np.sort(apart[chosen]), x, side="right") / max(1, chosen.sum())
            frames.append(pd.DataFrame({"ladder": ladder, "pair": pair, "tv": x, "share": share}))
    return pd.concat(frames, ignore_index=True)


def plot_pairs(frame: pd.DataFrame) -> Figure:
    """Two distribution functions per ladder; the further right, the more two prompts differ."""
    fig, each = each_panel(frame, 2.4, sharey=True)
    for ax, mine in each:
        looks = ({"color": GREY, "ls": "--"}, {"color": BLUE})
        for look, (pair, curve) in zip(looks, mine.groupby("pair", sort=False)):
            ax.plot(curve["tv"], curve["share"], label=pair, drawstyle="steps-post", **look)
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="TV between the two distributions")
    fig.axes[0].set_ylabel("share of pairs at most so far apart")
    return legend(fig)


# -- nucleation and settling


def seed_of(
    mine: pd.DataFrame, task: str, persona: str, quantile: float = QUANTILE
) -> claims.Seed | None:
    """The seed of one ladder; None where the base does not answer that persona, or too few."""
    alone = compared(mine, task, "base")
    if not alone.count.measurable or persona not in alone.clusters.astype(str):
        return None
    return claims.seed_of(alone.evidence("base"), persona, quantile=quantile)


def load_distributions(
    readouts: pd.DataFrame,
    task: str,
    checkpoints: Sequence[str],
    seeds: Seeds,
    quantile: float = QUANTILE,
) -> pd.DataFrame:
    """The seed and the means of `checkpoints` (native form): a row a ladder, distribution, option.

    Options are ordered by the seed. probability is unconditional; invalid-answer and residual
    follow as two more options. in_seed: the option belongs to A. Ladders without a seed are left
    out.
    """
    names, frames = np.array([*TASKS[task].options, *LEFTOVER]), []
    for ladder, mine in each_ladder(readouts):
        seed = seed_of(mine, task, seeds.get(ladder, ""), quantile)
        if seed is None:
            continue
        order = np.argsort(-seed.distribution, kind="stable")
        order = np.append(order, [len(names) - 2, len(names) - 1])
        inside = np.append(seed.mask, [False, False])[order]
        rows = [str(prompt.persona) == seeds[ladder] for prompt in PROMPTS]
        means = {"seed": given(mine, "base", task)[rows].mean(0)}
        for checkpoint in checkpoints:
            one = compared(mine, task, checkpoint)
            if one.count.measurable:
                means[checkpoint] = given(mine, checkpoint, task)[one.rows].mean(0)
        for distribution, p in means.items():
            columns = {"ladder": ladder, "distribution": distribution, "place": range(len(names))}
            columns |= {"option": names[order], "probability": p[order], "in_seed": inside}
            frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def plot_distributions(frame: pd.DataFrame) -> Figure:
    """The seed as bars, the checkpoints as marks; options ordered by the seed, its set A shaded."""
    fig, each = each_panel(frame, 2.2, down=True)
    for ax, mine in each:
        seed, colour = mine[mine["distribution"] == "seed"], ORANGE
        apart = np.clip(seed["place"] - len(seed) + 3, 0, None) * max(1, len(seed) // 25)
        gap = seed["place"] + apart  # sets the last two apart
        shade = {"color": colour, "alpha": 0.12, "lw": 0, "label": "A, the seed's options"}
        ax.axvspan(-0.5, seed["in_seed"].sum() - 0.5, **shade)
        bars = {"color": colour, "alpha": 0.6, "label": "the seed"}
        ax.bar(gap, seed["probability"], **bars)
        others, size = [d for d in mine["distribution"].unique() if d != "seed"], len(seed)
        for k, name in enumerate(others):
            x = gap + (k - (len(others) - 1) / 2) * 0.22
            y = mine.loc[mine["distribution"] == name, "probability"]
            look = {"color": COLOURS[name], "ms": 3.5 if size < 40 else 2, "label": name}
            ax.plot(x, y, MARKERS[name], **look)
        options, at = seed["option"].tolist()[:-2], gap.tolist()
        room = (WIDTH - 0.5) * len(options) / (gap.max() + 1)
        _option_ticks(ax, options, at[:-2], at[-2:], room)
        ax.set(xlim=(-0.6, gap.max() + 0.6), ylim=(0, None), ylabel="probability")
    return legend(fig)


def load_path(readouts: pd.DataFrame, task: str, seeds: Seeds) -> pd.DataFrame:
    """Base and SFT checkpoints in both forms by step: liquidity, and TV of the mean to the seed's.

    Step 0 is the base, read in either form: what form alone does stands at the left end. Forms
    never read, or not measurable, are left out.
    """
    rows = []
    picked = readouts["stage"].isin(["base", "sft"]) & (readouts["task"] == task)
    for ladder, mine in each_ladder(readouts[picked]):
        seed = seed_of(mine, task, seeds.get(ladder, ""))
        for (checkpoint, step, form), _ in mine.groupby(["checkpoint", "step", "form"], sort=False):
            one = compared(mine, task, (checkpoint, form))
            if not one.count.measurable:
                continue
            place = {"ladder": ladder, "form": form, "checkpoint": checkpoint}
            place |= {"step": 0 if checkpoint == "base" else step}
            for name, statistic in _on_path(one.distributions((checkpoint, form)), seed).items():
                found = estimated(inf.estimate(statistic, one.weights, low=0))
                rows.append(place | {"quantity": name} | found)
    return pd.DataFrame(rows)


def _on_path(p: np.ndarray, seed: claims.Seed | None) -> dict[str, Callable]:
    found = {"liquidity, bits": lambda w: ph.liquidity_bits(p, w)}
    if seed:
        to = seed.distribution
        found["TV to the seed"] = lambda w: ph.tv(ph.mean_distribution(p, w), to)
    return found


def plot_path(frame: pd.DataFrame) -> Figure:
    """Both quantities over SFT steps (0 is the base); the completion form is dashed."""
    quantities = list(frame["quantity"].unique())
    fig, axes = panels(frame["ladder"].nunique(), len(quantities), 2.0, sharex=True)
    looks = {"chat": ("o-", BLUE), "completion": ("s--", GREY)}
    for row, (ladder, mine) in zip(axes, each_ladder(frame), strict=True):
        row[0].set_title(label(title_of(ladder), wide=30))
        named = dict(sorted(zip(mine["step"], mine["checkpoint"], strict=True)))
        short = len(named) == 2  # nothing read on the way, perhaps nobody says how many steps
        ticks = [name if short or not step else str(step) for step, name in named.items()]
        for ax, quantity in zip(row, quantities, strict=True):
            for form, (style, colour) in looks.items():
                curve = mine[(mine["quantity"] == quantity) & (mine["form"] == form)]
                curve = curve.sort_values("step")
                ax.plot(curve["step"], curve["value"], style, color=colour, label=f"{form} form")
                band = curve["step"], curve["low"], curve["high"]
                ax.fill_between(*band, color=colour, alpha=0.2, lw=0)
            ax.set_xscale("symlog", linthresh=1)
            far = [a < 0.7 * b for a, b in zip(named, list(named)[1:])]  # else names overlap
            ax.set_xticks(list(named), [t * f for t, f in zip(ticks, [*far, True])], rotation=90)
            ax.minorticks_off()
            ax.set(ylim=(0, None), ylabel=quantity)
    fig.supxlabel("SFT steps")
    return legend(fig)


def load_probmass(
    readouts: pd.DataFrame,
    task: str,
    seeds: Seeds,
    quantile: float = QUANTILE,
    *,
    seed: int = 0,
    permutations: int = 999,
) -> pd.DataFrame:
    """ProbMass on the seed's options, native forms: a row a ladder and checkpoint, with interval.

    own: the seed's own mass on A; chance: |A|/K; lucky: what 5 % of equally large random sets
    exceed. Ladders without a seed are left out.
    """
    rows = []
    permuted = inf.relabellings(len(TASKS[task].options), permutations, seed)
    for ladder, mine in each_ladder(readouts):
        own = seed_of(mine, task, seeds.get(ladder, ""), quantile)
        for checkpoint in NATIVE if own else ():
            one = compared(mine, task, checkpoint)
            if not one.count.measurable:
                continue
            later = one.evidence(checkpoint)
            found = inf.estimate(claims.kept_mass(later, own), later.weights, low=0, high=1)
            lucky = ph.probmass(later.distribution.mean(0), own.mask[permuted])
            row = {"ladder": ladder, "checkpoint": checkpoint} | estimated(found)
            row |= {"own": own.ceiling, "chance": own.mask.mean()}
            rows.append(row | {"lucky": np.quantile(lucky, 1 - inf.ALPHA)})
    return pd.DataFrame(rows)


def plot_probmass(frame: pd.DataFrame) -> Figure:
    """A mark with interval per checkpoint, beside the chance level and the seed's own mass."""
    fig, each = each_panel(frame, 2.6, sharey=True)
    for ax, mine in each:
        first = mine.iloc[0]
        ax.axhline(first["own"], color=ORANGE, label="the seed's own mass")
        ax.axhline(first["chance"], color=GREY, ls="--", label="chance: size of A over K")
        for x, row in enumerate(mine.itertuples()):
            named, colour = None if x else "one random set in twenty", COLOURS[row.checkpoint]
            ax.hlines(row.lucky, x - 0.2, x + 0.2, ls=":", color=GREY, label=named)
            ax.plot([x, x], [row.low, row.high], color=colour)
            ax.plot(x, row.value, MARKERS[row.checkpoint], color=colour, ms=5)
        ax.set_xticks(range(len(mine)), mine["checkpoint"])
        ax.set(ylim=(0, 1.03), xlim=(-0.5, len(mine) - 0.5))
    fig.axes[0].set_ylabel("ProbMass on A")
    return legend(fig)
