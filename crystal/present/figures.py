"""Figures of the phase pages, in pairs: `load_x(readouts, ...)` is the tidy frame that is drawn, `plot_x(frame)` draws it.

`readouts` is a frame of `crystal.keep.store.load_readouts`, of one or several ladders; ladders stand in rows of panels. Option
probabilities are drawn as the model gave them, with the mass of answers that are no option (off-support) and that the
walk left open (unresolved) beside them. Colours: Okabe-Ito, cividis. Only plots load matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.prompts import NARRATORS, PROMPTS
from ..ask.tasks import TASKS
from ..measure import claims
from ..measure import inference as inf
from ..measure import phases as ph
from ..measure.claims import QUANTILE
from ..texts import label
from .answering import compared
from .axes import COLOURS, MARKERS, option_ticks
from .axes import panels as panels
from .axes import title_of as title_of
from .views import LEFTOVER, NATIVE, each_ladder, given, was_read

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# --- heat map: every prompt's law ------------------------------------------------------------------------------------


def narrator_order(base: np.ndarray) -> np.ndarray:
    """Narrators sorted by the likeliest option of their mean base law, then by how likely it is: alike ones side by side."""
    law = ph.grouped(base, inf.NARRATOR)
    return np.lexsort((-law.max(1), law.argmax(1)))


Seeds = Mapping[str, str]  # ladder -> the narrator whose answer is the seed, as tasks of other kinds name it


def load_heat(readouts: pd.DataFrame, task: str, views: Sequence[tuple[str, str]] = NATIVE,
              seeds: Seeds = {}) -> pd.DataFrame:  # noqa: B006, nobody changes it
    """One row per ladder, (rung, form) in `views` and prompt; one column per option, then off-support and unresolved.

    Rows are in drawing order, the same in every view and ladder: narrators by `narrator_order` of
    the first ladder's base, so that the panels, which share their axis, share its labels. `seed`
    marks the prompts of the seed, if one is named. A form that was never read (a ladder may have native
    forms only) is left out.
    """
    frames, order = [], None
    for ladder, mine in each_ladder(readouts):
        if order is None:
            base = given(mine, "base", "completion", task)[:, :-2]
            order = narrator_order(base / np.maximum(base.sum(1, keepdims=True), ph.TINY))
            order = np.concatenate([np.flatnonzero(n == inf.NARRATOR) for n in order])
        seed = inf.NARRATOR[order].astype(str) == seeds.get(ladder, "")
        for rung, form in [view for view in views if view in NATIVE or was_read(mine, *view)]:
            frame = pd.DataFrame(given(mine, rung, form, task)[order], columns=[*TASKS[task].options, *LEFTOVER])
            prompts = [PROMPTS[i].id for i in order]
            labels = {"ladder": ladder, "rung": rung, "form": form, "prompt": prompts, "seed": seed}
            frames.append(pd.concat([pd.DataFrame(labels), frame], axis=1))
    return pd.concat(frames, ignore_index=True)


def plot_heat(frame: pd.DataFrame, *, names: bool = True) -> Figure:
    """Prompts down, options across, one panel per rung and form. names: write the narrators beside the first panel."""
    from matplotlib.colors import PowerNorm

    views = list(frame[["rung", "form"]].drop_duplicates().itertuples(index=False))
    ladders = list(frame["ladder"].unique())
    options = list(frame.columns[5:-2])
    fig, axes = panels(len(ladders), len(views), 7.2 if len(views) < 4 else 9.6, 4.4 if names else 3.2, sharey=True)
    norm = PowerNorm(0.5, 0, frame[options].to_numpy().max())  # square root: small probabilities stay visible
    for row, ladder in zip(axes, ladders, strict=True):
        for ax, view in zip(row, views, strict=True):
            picked = frame[(frame["ladder"] == ladder) & (frame["rung"] == view.rung) & (frame["form"] == view.form)]
            if picked.empty:  # this ladder was never read in that form
                ax.set_visible(False)
                continue
            order, image = picked["prompt"], _heat(ax, picked, options, norm)
            ax.set_title(f"{view.rung}, {view.form}")
        if names:
            tellers = order.str[:2].astype(int).tolist()[::5]
            row[0].set_yticks(np.arange(2, len(order), 5), [NARRATORS[n] for n in tellers], fontsize=6.5)
        else:
            row[0].set_yticks([])
        row[0].set_ylabel(f"{label(title_of(ladder))}, {len(order)} prompts")
    fig.colorbar(image, ax=axes, label="probability (square-root scale)", shrink=0.7, pad=0.01)
    return fig


def _heat(ax: Axes, picked: pd.DataFrame, options: Sequence[str], norm) -> object:
    """Draw one panel; the two leftover columns stand apart and are wide enough to be seen beside many options."""
    wide = max(1, len(options) // 12)
    gap = np.full((len(picked), wide), np.nan)
    left = np.repeat(picked[list(LEFTOVER)].to_numpy(), wide, axis=1)
    table = np.column_stack([picked[options].to_numpy(), gap, left])
    image = ax.imshow(table, aspect="auto", norm=norm, cmap="cividis", interpolation="none")  # "none" embeds the cells themselves
    middle = len(options) + wide + (wide - 1) / 2
    option_ticks(ax, options, range(len(options)))
    step = 1 if len(options) <= 30 else 10
    ax.set_xticks([*range(0, len(options), step), middle, middle + wide], [*options[::step], *LEFTOVER])
    for tick in ax.get_xticklabels()[-2:]:
        tick.set_rotation(90)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    if picked["rung"].iloc[0] == "base" and picked["seed"].any():
        middle = np.flatnonzero(picked["seed"]).mean()
        ax.plot(len(options) - 0.5 + wide / 2, middle, "<", color=COLOURS["seed"], ms=6,
                clip_on=False)
    return image


# --- liquid ----------------------------------------------------------------------------------------------------------


def load_entropies(readouts: pd.DataFrame, task: str) -> pd.DataFrame:
    """One row per ladder and prompt of the base: entropy of its law in bits; `mean_law`: entropy of the mean over prompts."""
    frames = []
    for ladder, mine in each_ladder(readouts):
        alone = compared(mine, task, "base")
        base, prompts = alone.laws("base"), [p.id for p in alone.prompts]
        frames.append(pd.DataFrame({"ladder": ladder, "prompt": prompts, "entropy": ph.entropy_bits(base),
                                    "mean_law": float(ph.entropy_bits(base.mean(0))), "ceiling": np.log2(base.shape[1])}))
    return pd.concat(frames, ignore_index=True)


def plot_entropies(frame: pd.DataFrame) -> Figure:
    """Histogram of the prompts' entropies; the gap from their mean to the entropy of the mean law is the liquidity."""
    fig, axes = panels(frame["ladder"].nunique(), 1, 7.2, 2.6, sharex=True)
    for ax, (ladder, mine) in zip(axes[:, 0], each_ladder(frame), strict=True):
        inside, whole, ceiling = mine["entropy"].mean(), mine["mean_law"].iloc[0], mine["ceiling"].iloc[0]
        top = ax.hist(mine["entropy"], bins=np.linspace(0, ceiling, 41), color=COLOURS["sft"], alpha=0.55)[0].max()
        ax.axvline(inside, color=COLOURS["base"], label="mean over prompts")
        ax.axvline(whole, color=COLOURS["base"], ls="--", label="of the mean law")
        ax.annotate("", (whole, top * 1.1), (inside, top * 1.1), arrowprops={"arrowstyle": "<->", "color": COLOURS["seed"]})
        left = inside > 0.4 * ceiling  # of the gap stands its name, of the panel the legend, or both to the right
        at, side = (inside - ceiling / 100, "right") if left else (whole + ceiling / 100, "left")
        ax.text(at, top * 1.1, "liquidity", ha=side, va="center", color=COLOURS["seed"], weight="bold")
        ax.set(xlim=(0, ceiling), ylim=(0, top * 1.3), ylabel="prompts")
        ax.set_title(label(title_of(ladder)))
        ax.legend(loc="upper left" if left else "upper right")
    axes[-1, 0].set_xlabel("entropy of the answer, bits (the axis ends at log2 of the number of options)")
    return fig


def load_pairs(readouts: pd.DataFrame, task: str, grid: int = 101) -> pd.DataFrame:
    """Share of pairs of base prompts that differ by at most `tv`, for pairs of one narrator and of two."""
    x, frames = np.linspace(0, 1, grid), []
    for ladder, mine in each_ladder(readouts):
        alone = compared(mine, task, "base")
        base, (i, j) = alone.laws("base"), np.triu_indices(len(alone.prompts), 1)
        alike = alone.units[i] == alone.units[j]
        apart = ph.tv(base[i], base[j])
        for pair, chosen in (("one narrator, two frames", alike), ("two narrators", ~alike)):
            share = np.searchsorted(np.sort(apart[chosen]), x, side="right") / max(1, chosen.sum())
            frames.append(pd.DataFrame({"ladder": ladder, "pair": pair, "tv": x, "share": share}))
    return pd.concat(frames, ignore_index=True)


def plot_pairs(frame: pd.DataFrame) -> Figure:
    """Two distribution functions per ladder; the further right, the more two prompts differ."""
    fig, axes = panels(1, frame["ladder"].nunique(), 7.2, 2.8, sharey=True)
    for ax, (ladder, mine) in zip(axes[0], each_ladder(frame), strict=True):
        for (pair, curve), law, style in zip(mine.groupby("pair", sort=False), ("base", "sft"), ("--", "-"), strict=True):
            ax.plot(curve["tv"], curve["share"], style, color=COLOURS[law], label=pair, drawstyle="steps-post")
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="total variation between the two laws")
        ax.set_title(label(title_of(ladder)))
    axes[0, 0].set_ylabel("share of pairs at most so far apart")
    axes[0, -1].legend(loc="lower right")
    return fig


# --- nucleation and settling -----------------------------------------------------------------------------------------


def seed_of(mine: pd.DataFrame, task: str, narrator: str,
            quantile: float = QUANTILE) -> claims.Seed | None:
    """The seed of one ladder; None where the base does not answer that narrator, or too few."""
    alone = compared(mine, task, "base")
    if not alone.count.measurable or narrator not in alone.units.astype(str):
        return None
    return claims.seed_of(alone.evidence("base"), narrator, quantile=quantile)


def load_laws(readouts: pd.DataFrame, task: str, rungs: Sequence[str], seeds: Seeds,
              quantile: float = QUANTILE) -> pd.DataFrame:
    """Mean laws of `rungs` (native form) and the seed: one row per ladder, law and option, options
    ordered by the seed.

    probability is unconditional, off-support and unresolved follow as two more options. in_seed:
    the option belongs to A. Ladders without a seed are left out.
    """
    names, frames = np.array([*TASKS[task].options, *LEFTOVER]), []
    for ladder, mine in each_ladder(readouts):
        seed = seed_of(mine, task, seeds.get(ladder, ""), quantile)
        if seed is None:
            continue
        order = np.append(np.argsort(-seed.law, kind="stable"), [len(names) - 2, len(names) - 1])
        inside = np.append(seed.mask, [False, False])
        asked = inf.NARRATOR.astype(str) == seeds[ladder]
        table = {"seed": given(mine, "base", "completion", task)[asked].mean(0)}
        table |= {rung: _mean_given(mine, rung, task) for rung in rungs if compared(mine, task, rung).count.measurable}
        for law, p in table.items():
            frames.append(pd.DataFrame({"ladder": ladder, "law": law, "place": range(len(names)), "option": names[order],
                                        "probability": p[order], "in_seed": inside[order]}))
    return pd.concat(frames, ignore_index=True)


def _mean_given(mine: pd.DataFrame, rung: str, task: str) -> np.ndarray:
    """(options + 2,): mean of `given` over the prompts that the rung answers."""
    answered = compared(mine, task, rung).rows
    return given(mine, rung, dict(NATIVE)[rung], task)[answered].mean(0)


def plot_laws(frame: pd.DataFrame) -> Figure:
    """The seed as bars, the rungs as marks over them; options ordered by the seed, its set A shaded."""
    fig, axes = panels(frame["ladder"].nunique(), 1, 7.2, 2.9)
    for ax, (ladder, mine) in zip(axes[:, 0], each_ladder(frame), strict=True):
        seed = mine[mine["law"] == "seed"]
        gap = seed["place"] + np.clip(seed["place"] - len(seed) + 3, 0, None) * max(1, len(seed) // 25)  # sets the last two apart
        ax.axvspan(-0.5, seed["in_seed"].sum() - 0.5, color=COLOURS["seed"], alpha=0.12, lw=0, label="A, the seed's options")
        ax.bar(gap, seed["probability"], width=0.8, color=COLOURS["seed"], alpha=0.6, label="seed (a narrator in the base)")
        others = [law for law in mine["law"].unique() if law != "seed"]
        for k, law in enumerate(others):
            x, y = gap + (k - (len(others) - 1) / 2) * 0.22, mine.loc[mine["law"] == law, "probability"]
            ax.plot(x, y, MARKERS[law], color=COLOURS[law], ms=5 if len(seed) < 40 else 3, label=law)
        option_ticks(ax, seed["option"].tolist()[:-2], gap.tolist()[:-2])
        named = [tick.get_text() for tick in ax.get_xticklabels()]
        ax.set_xticks([*ax.get_xticks(), *gap.tolist()[-2:]], [*named, *LEFTOVER], rotation=90)
        ax.set(xlim=(-0.6, gap.max() + 0.6), ylim=(0, None), ylabel="probability")
        ax.set_title(label(title_of(ladder)))
    axes[0, 0].legend(loc="upper right")
    return fig


def load_path(readouts: pd.DataFrame, task: str, seeds: Seeds) -> pd.DataFrame:
    """Base and SFT rungs in both forms by step: liquidity (bits) and TV of the mean law to the seed's, with intervals.

    Step 0 is the base, read in either form: what form alone does stands at the left end. Forms
    never read, or not measurable, are left out.
    """
    rows = []
    for ladder, mine in each_ladder(readouts[readouts["stage"].isin(["base", "sft"]) & (readouts["task"] == task)]):
        seed = seed_of(mine, task, seeds.get(ladder, ""))
        for (rung, step, form), _ in mine.groupby(["rung", "step", "form"], sort=False):
            one = compared(mine, task, (rung, form))
            statistics = _path_statistics(one.laws((rung, form)), seed and seed.law) if one.count.measurable else {}
            for quantity, statistic in statistics.items():
                found = inf.estimate(statistic, one.weights, low=0)
                rows.append({"ladder": ladder, "form": form, "rung": rung, "step": 0 if rung == "base" else step,
                             "quantity": quantity, "value": found.value, "low": found.low, "high": found.high})
    return pd.DataFrame(rows)


def _path_statistics(laws: np.ndarray, seed: np.ndarray | None) -> dict[str, Callable]:
    found = {"liquidity, bits": lambda w: ph.liquidity_bits(laws, w)}
    if seed is not None:
        found["TV to the seed"] = lambda w: ph.tv(ph.mean_law(laws, w), seed)
    return found


def plot_path(frame: pd.DataFrame) -> Figure:
    """Both quantities over SFT steps (0 is the base); the chat form drawn through, the completion form dashed."""
    quantities = list(frame["quantity"].unique())
    fig, axes = panels(frame["ladder"].nunique(), len(quantities), 7.2, 2.7, sharex=True)
    for row, (ladder, mine) in zip(axes, each_ladder(frame), strict=True):
        row[0].set_title(label(title_of(ladder)))
        for ax, quantity in zip(row, quantities, strict=True):
            for form, colour, style in (("chat", COLOURS["sft"], "o-"), ("completion", COLOURS["base"], "s--")):
                curve = mine[(mine["quantity"] == quantity) & (mine["form"] == form)].sort_values("step")
                ax.plot(curve["step"], curve["value"], style, color=colour, label=f"{form} form")
                ax.fill_between(curve["step"], curve["low"], curve["high"], color=colour, alpha=0.2, lw=0)
            ax.set_xscale("symlog", linthresh=1)
            named = dict(sorted(zip(mine["step"], mine["rung"], strict=True)))
            short = len(named) == 2  # nothing read on the way, and perhaps nobody says how many steps that was
            ax.set_xticks(list(named), [rung if short or not step else str(step) for step, rung in named.items()])
            ax.minorticks_off()
            ax.set(ylim=(0, None), ylabel=quantity)
    for ax in axes[-1]:
        ax.set_xlabel("SFT steps")
    axes[0, 0].legend()
    return fig


def load_probmass(readouts: pd.DataFrame, task: str, seeds: Seeds, quantile: float = QUANTILE, *,
                  seed: int = 0, permutations: int = 999) -> pd.DataFrame:
    """ProbMass on the seed's options, native forms: one row per ladder and rung, with interval.

    own: the seed's own mass on A; chance: |A|/K; lucky: what 5 % of equally large random sets
    exceed. Ladders without a seed are left out.
    """
    rows = []
    permuted = inf.relabellings(len(TASKS[task].options), permutations, seed)
    for ladder, mine in each_ladder(readouts):
        own = seed_of(mine, task, seeds.get(ladder, ""), quantile)
        for rung, _ in NATIVE if own else ():
            one = compared(mine, task, rung)
            if not one.count.measurable:
                continue
            later = one.evidence(rung)
            found = inf.estimate(claims.kept_mass(later, own), later.weights, low=0, high=1)
            lucky = ph.probmass(later.law.mean(0), own.mask[permuted])
            rows.append({"ladder": ladder, "rung": rung, "value": found.value, "low": found.low,
                         "high": found.high, "own": own.ceiling, "chance": own.mask.mean(),
                         "lucky": np.quantile(lucky, 1 - inf.ALPHA)})
    return pd.DataFrame(rows)


def plot_probmass(frame: pd.DataFrame) -> Figure:
    """A mark with interval per rung, beside the chance level and the seed's own mass."""
    fig, axes = panels(1, frame["ladder"].nunique(), 7.2, 2.9, sharey=True)
    for ax, (ladder, mine) in zip(axes[0], each_ladder(frame), strict=True):
        ax.axhline(mine["own"].iloc[0], color=COLOURS["seed"], label="the seed's own mass")
        ax.axhline(mine["chance"].iloc[0], color=COLOURS["chance"], ls="--", label="chance: size of A over K")
        for x, rung in enumerate(mine.itertuples()):
            named = None if x else "one random set in twenty"
            ax.hlines(rung.lucky, x - 0.2, x + 0.2, ls=":", color=COLOURS["chance"], label=named)
            ax.plot([x, x], [rung.low, rung.high], color=COLOURS[rung.rung])
            ax.plot(x, rung.value, MARKERS[rung.rung], color=COLOURS[rung.rung], ms=7)
        ax.set_xticks(range(len(mine)), mine["rung"])
        ax.set(ylim=(0, 1.03), xlim=(-0.5, len(mine) - 0.5), title=label(title_of(ladder)))
    axes[0, 0].set_ylabel("ProbMass on A")
    axes[0, -1].legend(loc="lower right")
    return fig
