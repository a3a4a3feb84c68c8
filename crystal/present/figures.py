"""What figures share, and those of seeds: `load_x` is the frame drawn, `plot_x` draws it.

`readouts` is a frame of `crystal.keep.store.load_readouts`, of one or several ladders. Colours:
Okabe-Ito, cividis. matplotlib is loaded when something is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product, starmap
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
from .views import LEFTOVER, Compared, each_ladder, estimated, given, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation

# Okabe-Ito: for the colour-blind, too
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW, GREY = "#56B4E9", "#D55E00", "#F0E442", "#767c85"
HUES = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW, GREY)
COLOURS = {"base": GREY, "seed": ORANGE, "sft": BLUE, "dpo": PURPLE, "rlvr": GREEN, "chance": GREY}
WIDTH = 4.2  # inches: a column of print, which a telephone shows whole
LETTER, LINE = 0.062, 0.125  # inches that a letter and a line of the smallest text take
GAP, APART = 3, 5  # points from a name to its own line, and at least to all others
INK, PAPER = "#000001", "#fffffe"  # on coloured cells: the same on a light and a dark page
MARKERS = {"base": "s", "sft": "o", "dpo": "^", "rlvr": "D"}


def panels(
    rows: int, columns: int, height: float, width: float = 0.0, **shared
) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns axes, unknown to pyplot; inches, the width at least WIDTH."""
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


def option_ticks(
    ax: Axes, options: Sequence[str], room: float, at: Sequence, rest: Mapping[str, float] = {}
) -> None:
    """Name options along x, as many as `room` inches allow; rest: more names and their places."""
    longest = max(map(len, options))
    step = int(np.ceil(len(options) * (LINE if longest > 2 else LETTER * (longest + 0.5)) / room))
    turned = 90 if rest or longest > 2 else 0
    ax.set_xticks([*at[::step], *rest.values()], [*options[::step], *rest], rotation=turned)
    ax.grid(False, axis="x")


def band(ax: Axes, curve: pd.DataFrame, look: Mapping[str, object]) -> None:
    """A line over steps, with its interval."""
    ax.plot(curve["step"], curve["value"], **look)
    shade = {"color": look["color"], "alpha": 0.2, "lw": 0}
    ax.fill_between(curve["step"], curve["low"], curve["high"], **shade)


def steps_axis(ax: Axes, names: Mapping[int, str]) -> None:
    """A logarithmic x axis from step 0 on, its steps named as far as names do not overlap."""
    steps = list(names)
    far = [one < 0.7 * after for one, after in zip(steps, [*steps[1:], np.inf], strict=True)]
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks(steps, [names[s] if wide else "" for s, wide in zip(steps, far)], rotation=90)
    ax.minorticks_off()


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name the rows 0, 1, ... from the top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


def legend(fig: Figure) -> Figure:
    """Each name once: on the lines where all of them have room, else above all panels."""
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


# -- names on lines; pixels in, pixels out


def name_lines(fig: Figure, wanted: Mapping[str, object]) -> bool:
    """Put each name of `wanted` (name -> legend handle) on its line, all in one panel if they fit
    there; False, and nothing is drawn, where a handle is no line or a name has no room.

    A name stands clear of everything drawn, and of other lines so far that nobody takes it for
    theirs. Names are in ink: colours of lines are too light for small letters.
    """
    from matplotlib.lines import Line2D

    for one in wanted.values():
        if not isinstance(one, Line2D) or one.get_linestyle() == "None":
            return False
    if layout := fig.get_layout_engine():
        layout.execute(fig)  # a name needs to know where the panels lie
    return any(_named(axes, wanted) for axes in (*([ax] for ax in fig.axes), fig.axes))


def _named(axes: Sequence[Axes], wanted: Iterable[str]) -> bool:
    """Put every name on its line in the first of the panels that has room, or none at all."""
    put: list[Annotation] = []
    for name in wanted:
        words = name.split(" ")
        half = len(words) // 2
        broken = f"{' '.join(words[:half])}\n{' '.join(words[half:])}".strip()
        lines = [(ax, line) for ax in axes for line in ax.lines if line.get_label() == name]
        tries = ((*place, text) for text in (name, broken) for place in lines)
        text = next(filter(None, starmap(_name, tries)), None)
        if text is None:
            for one in put:
                one.remove()
            return False
        put.append(text)
    return True


def _name(ax: Axes, line: Line2D, name: str) -> Annotation | None:
    """The name above or below a line, where it stands freest; None where it has no room."""
    at = {"xycoords": "axes fraction", "textcoords": "offset points", "linespacing": 1}
    text = ax.annotate(name, (0, 0), (0, 0), annotation_clip=False, **at)
    text.set_in_layout(False)
    size, pixels, drawn = text.get_window_extent().size, ax.figure.dpi / 72, _drawn(ax, text)
    own = next(points for what, points in drawn if what is line)
    unnamed = (one for one in ax.lines if one.get_label().startswith("_"))
    alike = [line, *(one for one in unnamed if one.get_color() == line.get_color())]
    near = np.concatenate([points for what, points in drawn if what in alike])
    far = np.concatenate([own[:0], *(points for what, points in drawn if what not in alike)])
    best, found = APART * pixels, None
    sides, across = {GAP: "bottom", -GAP: "top"}, {"center": 0.5, "left": 0, "right": 1}
    for point, up, align in product(own[:: max(1, len(own) // 60)], sides, across):
        foot = point + [-across[align] * size[0], up * pixels - (up < 0) * size[1]]
        box = np.array([foot, foot + size])
        if ax.bbox.padded(1).count_contains(box) == 2 and _clearance(box, near) > 1:
            room = min(_clearance(box, far), 6 * APART * pixels)
            if room > best:
                best, found = room, (point, up, align)
    if found is None:
        text.remove()
        return None
    point, up, align = found
    text.xy, text.xycoords = ax.transData.inverted().transform(point), "data"
    text.set(position=(0, up), va=sides[up], ha=align)
    return text


def _clearance(box: np.ndarray, points: np.ndarray) -> float:
    """Pixels from a box to the nearest of the points; 0 inside."""
    if not len(points):
        return np.inf
    beyond = np.maximum(np.maximum(box[0] - points, points - box[1]), 0)
    return float(np.hypot(*beyond.T).min())


def _drawn(ax: Axes, new: Annotation) -> list[tuple[object, np.ndarray]]:
    """Everything else on a panel that a name must not touch, as points, in pixels."""
    paths = [(line, line.get_transform().transform_path(line.get_path())) for line in ax.lines]
    found = [(line, _along(path.vertices)) for line, path in paths]
    for shown in ax.collections:
        if hasattr(shown, "get_segments"):  # intervals; shades may lie below a name
            segments = map(shown.get_transform().transform, shown.get_segments())
            found += [(shown, _along(segment)) for segment in segments]
    for text in ax.texts:
        if text is not new:
            (left, low), (right, high) = text.get_window_extent().get_points()
            inside = product(np.linspace(left, right, 12), np.linspace(low, high, 4))
            found.append((text, np.array(list(inside))))
    return found


def _along(vertices: np.ndarray) -> np.ndarray:
    """Points of a line every two pixels or so, without those that do not exist."""
    vertices = np.reshape(vertices, (-1, 2))  # of an interval that does not exist: no pair at all
    there = vertices[np.isfinite(vertices).all(1)]
    steps = (np.minimum(np.hypot(*np.diff(there, axis=0).T), 1e4) / 2).astype(int)
    between = (np.linspace(a, b, n + 2) for a, b, n in zip(there, there[1:], steps))
    return np.concatenate([there[:1], *between])


# -- seeds, on pages of nucleation and settling


def seed_of(base: Compared, persona: str, quantile: float = QUANTILE) -> claims.Seed | None:
    """A ladder's seed; None where the base does not answer that persona, or too few prompts."""
    if not base.count.measurable or persona not in base.clusters.astype(str):
        return None
    return claims.seed_of(base.evidence("base"), persona, quantile=quantile)


def load_distributions(ladders: Sequence, task: str, stages: Sequence[str]) -> pd.DataFrame:
    """The seed and the means of stages: a row a ladder, distribution, option. ladders: `Series`
    of a page, each with a seed.

    Options are ordered by the seed; probability is unconditional, and LEFTOVER are two more
    options. in_seed: the option belongs to A.
    """
    names, frames = np.array([*TASKS[task].options, *LEFTOVER]), []
    for one in ladders:
        asked = {"seed": ("base", [p for p in PROMPTS if str(p.persona) == one.who])}
        for stage in stages:
            if (alone := one.at(task, stage)).count.measurable:
                asked[stage] = stage, alone.prompts
        order = [*np.argsort(-one.seed.distribution, kind="stable"), -2, -1]
        about = {"ladder": one.name, "place": range(len(names)), "option": names[order]}
        about |= {"in_seed": np.append(one.seed.mask, [False, False])[order]}
        for distribution, (stage, prompts) in asked.items():
            p = given(one.readouts, stage, task, prompts).mean(0)[order]
            frames.append(pd.DataFrame(about | {"distribution": distribution, "probability": p}))
    return pd.concat(frames, ignore_index=True)


def plot_distributions(frame: pd.DataFrame) -> Figure:
    """The seed as bars, its set A shaded, the checkpoints as marks."""
    fig, each = each_panel(frame, 2.2, down=True)
    for ax, mine in each:
        seed, *others = (part for _, part in mine.groupby("distribution", sort=False))
        options, size = seed["option"].tolist()[:-2], len(seed)
        apart = np.clip(seed["place"] - size + 3, 0, None) * max(1, size // 25)
        at = (seed["place"] + apart).to_numpy()  # the last two stand apart
        shade = {"color": ORANGE, "alpha": 0.12, "lw": 0, "label": "A, the seed's options"}
        ax.axvspan(-0.5, seed["in_seed"].sum() - 0.5, **shade)
        ax.bar(at, seed["probability"], color=ORANGE, alpha=0.6, label="the seed")
        for k, part in enumerate(others):
            x, name = at + (k - (len(others) - 1) / 2) * 0.22, part["distribution"].iloc[0]
            look = {"color": COLOURS[name], "ms": 3.5 if size < 40 else 2, "label": name}
            ax.plot(x, part["probability"], MARKERS[name], **look)
        room = (WIDTH - 0.5) * len(options) / (at[-1] + 1)
        option_ticks(ax, options, room, at[:-2], dict(zip(LEFTOVER, at[-2:], strict=True)))
        ax.set(xlim=(-0.6, at[-1] + 0.6), ylim=(0, None), ylabel="probability")
    return legend(fig)


def load_path(ladders: Sequence, task: str) -> pd.DataFrame:
    """Liquidity, and TV of the mean to the seed, of the base (step 0) and along SFT, in the forms
    that were read and can be measured.
    """
    rows = []
    for ladder in ladders:
        mine = ladder.readouts[ladder.readouts["stage"].isin(["base", "sft"])]
        for (checkpoint, step, form), _ in mine.groupby(["checkpoint", "step", "form"], sort=False):
            one = ladder.read(task, {"here": (checkpoint, form)})
            if not one.count.measurable:
                continue
            found = {"liquidity, bits": one.liquidity("here")}
            if ladder.seed:
                found["TV to the seed"] = one.to(ladder.seed.distribution, "here")
            about = {"ladder": ladder.name, "form": form, "checkpoint": checkpoint}
            about |= {"step": 0 if checkpoint == "base" else step}
            rows += [about | {"quantity": name} | estimated(x) for name, x in found.items()]
    return pd.DataFrame(rows)


def plot_path(frame: pd.DataFrame) -> Figure:
    """Ladders down, quantities across, over SFT steps; the completion form is dashed."""
    quantities = list(frame["quantity"].unique())
    fig, axes = panels(frame["ladder"].nunique(), len(quantities), 2.0, sharex=True)
    looks = {"chat": ("o", BLUE, "-"), "completion": ("s", GREY, "--")}
    for row, (ladder, mine) in zip(axes, each_ladder(frame), strict=True):
        row[0].set_title(label(title_of(ladder), wide=30))
        named = dict(sorted(zip(mine["step"], mine["checkpoint"], strict=True)))
        if len(named) > 2:  # else nothing was read on the way, and perhaps nobody counted steps
            named = {step: str(step) if step else name for step, name in named.items()}
        for ax, quantity in zip(row, quantities, strict=True):
            for form, (marker, colour, ls) in looks.items():
                curve = mine[(mine["quantity"] == quantity) & (mine["form"] == form)]
                curve = curve.sort_values("step")
                look = {"marker": marker, "color": colour, "ls": ls, "label": f"{form} form"}
                band(ax, curve, look)
            steps_axis(ax, named)
            ax.set(ylim=(0, None), ylabel=quantity)
    fig.supxlabel("SFT steps")
    return legend(fig)


def load_probmass(
    ladders: Sequence, task: str, *, seed: int = 0, permutations: int = 999
) -> pd.DataFrame:
    """ProbMass on the seed's options: a row a ladder (that has a seed) and stage, with interval.

    own: the seed's own mass on A; chance: |A|/K; lucky: what 5 % of equally large random sets
    exceed.
    """
    rows = []
    permuted = inf.relabellings(len(TASKS[task].options), permutations, seed)
    for ladder in ladders:
        own = ladder.seed
        for stage in ladder.stages:
            one = ladder.at(task, stage)
            if one.count.measurable:
                later = one.evidence(stage)
                lucky = ph.probmass(later.distribution.mean(0), own.mask[permuted])
                row = {"ladder": ladder.name, "checkpoint": stage}
                row |= estimated(one.estimate(claims.kept_mass(later, own), high=1))
                row |= {"own": own.ceiling, "chance": own.mask.mean()}
                rows.append(row | {"lucky": np.quantile(lucky, 1 - inf.ALPHA)})
    return pd.DataFrame(rows)


def plot_probmass(frame: pd.DataFrame) -> Figure:
    """A mark with interval per checkpoint, beside chance and the seed's own mass."""
    fig, each = each_panel(frame, 2.6, sharey=True)
    for ax, mine in each:
        first = mine.iloc[0]
        ax.axhline(first["own"], color=ORANGE, label="the seed's own mass")
        ax.axhline(first["chance"], color=GREY, ls="--", label="chance: size of A over K")
        x, named = np.arange(len(mine)), "one random set in twenty"
        ax.hlines(mine["lucky"], x - 0.2, x + 0.2, ls=":", color=GREY, label=named)
        for at, row in enumerate(mine.itertuples()):
            colour = COLOURS[row.checkpoint]
            ax.plot([at, at], [row.low, row.high], color=colour)
            ax.plot(at, row.value, MARKERS[row.checkpoint], color=colour, ms=5)
        ax.set_xticks(range(len(mine)), mine["checkpoint"])
        ax.set(ylim=(0, 1.03), xlim=(-0.5, len(mine) - 0.5))
    fig.axes[0].set_ylabel("ProbMass on A")
    return legend(fig)
