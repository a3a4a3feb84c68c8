"""The explorer: every distribution of some series, for a page on which a reader moves through them.

`load` reads a ladder or an experiment, `load_numbers` is the table of what is shown, `embed` puts
both on the page. Distributions are conditional on an option; every checkpoint stands on the prompts
that it answers itself. Numbers are computed here: the script only shows them.

Charts are specs of Vega, not Vega-Lite: this draws the heat map as up to 10,000 rectangles, 50 ms a
step; Vega has a mark for a picture, which takes less than a frame.
"""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..ask.ladders import Checkpoint, load_ladder
from ..ask.prompts import COMPLETION, FORMS, Prompt, joined
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError
from ..keep.store import load_readouts
from ..measure import claims, evidence
from ..measure import quantities as ph
from . import show, verdicts
from .figures import COLOURS
from .views import compared, unconditional

STEPS = 255  # a cell is the square root of a probability, in so many steps
DECIMALS = 4  # of bits, and of mean distributions
COARSE = (1 - ((STEPS - 0.5) / STEPS) ** 2, 0.5 / 10**DECIMALS)  # most a cell, a number is off
NEEDS = ("explorer.css", "vega/vega.min.js", "explorer.js")
NUMBERS = ("entropy_of_mean", "mean_entropy", "mutual_information", "tv_to_seed")


@dataclass(frozen=True, eq=False)
class Group:
    """What was read on the same prompts: a ladder, or an experiment with the base it grew from."""

    name: str
    prompts: tuple[Prompt, ...]
    checkpoints: tuple[Checkpoint, ...]
    series: dict[str, list[int]]  # title -> places among `checkpoints`, in the order of training
    seeds: dict[str, str]  # task -> the persona whom tasks of other kinds name
    read: set[tuple[str, str]]  # checkpoint and form in which it was asked every prompt
    readouts: dict[str, pd.DataFrame]  # by task


def load(ladders: Sequence[str]) -> list[Group]:
    """Groups of ladders and experiments: their checkpoints asked every prompt in some form, of the
    natural prompts the first wording of each context.

    Raises: CrystalError where no checkpoint was, and as the store does.
    """
    return [_group(name) for name in ladders]


def _group(name: str) -> Group:
    ladder = load_ladder(name)
    parents = {c.parent for c in ladder.checkpoints} - {""}
    if len(parents) > 1:
        what = f"{name} grew from several ladders"
        raise CrystalError(what, hint=f"name one of: {', '.join(sorted(parents))}")
    frames = [load_readouts(parent, checkpoints=["base"], tasks=PHASE_TASKS) for parent in parents]
    frame = pd.concat([*frames, load_readouts(name, tasks=PHASE_TASKS)], ignore_index=True)
    frame = frame[frame["form"].isin(FORMS) & (frame["temperature"] == 1)].assign(ladder=name)
    asked = verdicts.asked(frame)
    prompts = tuple(p for p in asked if isinstance(p, Prompt) or p.wording == "cue-1")
    frame = frame[frame["prompt"].isin([prompt.id for prompt in prompts])]
    whole = frame.groupby(["checkpoint", "form"]).size() == len(prompts) * len(PHASE_TASKS)
    read = set(whole.index[whole])
    bases = [load_ladder(parent).checkpoint("base") for parent in parents]
    there = {checkpoint for checkpoint, _ in read}
    checkpoints = tuple(c for c in (*bases, *ladder.checkpoints) if c.name in there)
    if not checkpoints:
        what = f"no checkpoint of {name} was asked every prompt"
        raise CrystalError(what, hint=f"make resample LADDER={name}")
    series: dict[str, list[int]] = {}
    for place, checkpoint in enumerate(checkpoints[len(bases) :], len(bases)):
        title = f"{checkpoint.parent}: {checkpoint.run}" if bases else ladder.title
        series.setdefault(title, [*range(len(bases))]).append(place)
    seeds = verdicts.measured(name).seeds if ladder.kind == "ladder" else {}
    readouts = {task: frame[frame["task"] == task] for task in PHASE_TASKS}
    return Group(name, prompts, checkpoints, series, seeds, read, readouts)


def seed_of(group: Group, task: str) -> claims.Seed | None:
    """What the base answers, as raw text, to whom tasks of other kinds name."""
    if task not in group.seeds:
        return None
    place = "base", COMPLETION
    base = compared(group.readouts[task], task, place, prompts=group.prompts)
    return claims.seed_of(base.evidence(place), group.seeds[task])


def load_numbers(groups: Sequence[Group]) -> pd.DataFrame:
    """One row per task, checkpoint and form that was read: answered, asked, NUMBERS (bits;
    tv_to_seed of the mean; nan where too few prompts are answered), mean (options,).
    """
    rows = []
    for group in groups:
        for task, mine in group.readouts.items():
            seed = seed_of(group, task)
            for form, c in itertools.product(FORMS, group.checkpoints):
                if (place := (c.name, form)) not in group.read:
                    continue
                one = compared(mine, task, place, prompts=group.prompts)
                row = {"ladder": group.name, "checkpoint": c.name, "stage": c.stage}
                row |= {"step": c.step, "form": form, "task": task}
                row |= {"answered": one.count.answered, "asked": one.count.asked}
                row |= dict.fromkeys(NUMBERS, np.nan) | {"mean": None}
                if one.count.measurable:
                    p = one.distributions(place)
                    row["mean"] = mean = p.mean(0)
                    row["entropy_of_mean"] = float(ph.entropy_bits(mean))
                    row["mean_entropy"] = float(ph.entropy_bits(p).mean())
                    row["mutual_information"] = float(ph.liquidity_bits(p))
                    row["tv_to_seed"] = float(ph.tv(mean, seed.distribution)) if seed else np.nan
                rows.append(row)
    return pd.DataFrame(rows)


# --- packed


def packed(groups: Sequence[Group], numbers: pd.DataFrame) -> str:
    """All that the page shows, deflated, in base64: names, texts and numbers as JSON behind its
    length in four bytes; then the cells of every group, task, form and checkpoint.

    A prompt has a cell of every option, all 0 where it is not answered, and one of the mass on the
    options in percent. Written are differences, modulo 256, from checkpoint to checkpoint and of
    these from prompt to prompt, option by option: so they deflate best.
    """
    cells, described = [], []
    for group in groups:
        mine = numbers[numbers["ladder"] == group.name]
        tasks = {task: _of_task(group, task, mine[mine["task"] == task]) for task in PHASE_TASKS}
        cells += [tasks[task].pop("cells") for task in PHASE_TASKS]
        checkpoints = [{"stage": c.stage, "step": c.step} for c in group.checkpoints]
        series = [{"title": title, "checkpoints": places} for title, places in group.series.items()]
        described.append({"checkpoints": checkpoints, "series": series, "tasks": tasks})
    tasks = {task: {"ask": TASKS[task].ask, "options": TASKS[task].options} for task in PHASE_TASKS}
    facts = {"forms": FORMS, "tasks": tasks, "groups": described}
    facts |= {"steps": STEPS, "decimals": DECIMALS, "charts": CHARTS}
    text = json.dumps(facts, allow_nan=False).encode()
    head = len(text).to_bytes(4, "little")
    deflate = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
    whole = deflate.compress(b"".join([head, text, *cells])) + deflate.flush()
    return base64.b64encode(whole).decode()


def _of_task(group: Group, task: str, numbers: pd.DataFrame) -> dict[str, Any]:
    """A group's prompts, numbers and cells of one task; prompts whose base answers alike, together
    with all of their cluster, stand side by side.
    """
    tables = {f: np.stack([_table(group, task, c, f) for c in group.checkpoints]) for f in FORMS}
    _, clusters = np.unique([prompt.persona for prompt in group.prompts], return_inverse=True)
    p = ph.grouped(_conditional(tables[COMPLETION][0]), clusters)
    rank = np.argsort(np.lexsort((-p.max(1), p.argmax(1))))  # of every cluster
    order = np.argsort(rank[clusters], kind="stable")
    shown, seed = [group.prompts[place] for place in order], seed_of(group, task)
    found = {"prompts": [f"{prompt.cluster}, {prompt.wording}" for prompt in shown], "forms": {}}
    if seed:
        rows = [n for n, p in enumerate(shown) if str(p.persona) == group.seeds[task]]
        found["seed"] = {"distribution": _whole(seed.distribution), "row": float(np.mean(rows))}
    for form in FORMS:
        mine = numbers[numbers["form"] == form].set_index("checkpoint")
        mine = mine.reindex([c.name for c in group.checkpoints])  # not read: nan
        found["forms"][form] = {name: _rounded(mine[name]) for name in (*NUMBERS, "answered")} | {
            "means": [_whole(one) if isinstance(one, np.ndarray) else None for one in mine["mean"]],
            "texts": [_text(prompt, task, form) for prompt in shown],
        }
    found["cells"] = b"".join(_cells(tables[form][:, order]) for form in FORMS)
    return found


def _table(group: Group, task: str, checkpoint: Checkpoint, form: str) -> np.ndarray:
    """(prompts, options): probabilities as read; 0 where nobody read them."""
    if (checkpoint.name, form) not in group.read:
        return np.zeros((len(group.prompts), len(TASKS[task].options)))
    return unconditional(group.readouts[task], checkpoint.name, task, form, prompts=group.prompts)


def _conditional(tables: np.ndarray) -> np.ndarray:
    return tables / np.maximum(tables.sum(-1, keepdims=True), ph.TINY)


def _cells(tables: np.ndarray) -> bytes:
    """tables: (checkpoints, prompts, options), as read."""
    mass = tables.sum(2, keepdims=True)
    p = np.where(evidence.answers(mass), _conditional(tables), 0)
    steps = np.concatenate([np.sqrt(p) * STEPS, mass * 100], 2).round().astype(np.uint8)
    for axis in (0, 1):
        steps = np.diff(steps, axis=axis, prepend=np.uint8(0))
    return steps.swapaxes(1, 2).tobytes()


def _whole(distribution: np.ndarray) -> list[int]:
    return np.round(distribution * 10**DECIMALS).astype(int).tolist()


def _rounded(values: pd.Series) -> list[float | None]:
    return [None if np.isnan(x) else round(float(x), DECIMALS) for x in values]


def _text(prompt: Prompt, task: str, form: str) -> str:
    """The prompt as it was given; in chat form the reply that was begun on a line of its own."""
    text, reply = prompt.text(TASKS[task], form), prompt.reply(TASKS[task])
    if form == COMPLETION:
        return joined(text, reply)
    return f"{text}\n→ {reply}" if reply else text


# --- on the page


def embed(groups: Sequence[Group], numbers: pd.DataFrame) -> None:
    """Put the explorer on the page, its numbers as a table beside it."""
    script = f'window.crystalExplorer = "{packed(groups, numbers)}";\n'
    table = numbers.drop(columns="mean")
    show.embed("explorer", ELEMENT, script=script, needs=NEEDS, data=table)


def _choice(name: str, label: str) -> str:
    return f'<label>{label}<select name="{name}"></select></label>'


def _number(name: str, label: str, about: str = "") -> str:
    return f'<div{about}><dt>{label}</dt><dd data-number="{name}">–</dd></div>'


def _swatch(colour: str, kind: str = "box") -> str:
    """What stands in a key beside a word, so that the word keeps the colour of text."""
    return f'<i class="{kind}" style="color:{COLOURS[colour]}"></i>'


ELEMENT = f"""\
<div class="explorer">
<noscript><p>The explorer needs scripts. Its numbers are in the file below.</p></noscript>
<form hidden>
{_choice("series", "Series")}
{_choice("task", "Task")}
{_choice("form", "Form of the prompt")}
<label class="wide" for="explorer-step"><span>Checkpoint: <output name="at"></output></span>
<input type="range" id="explorer-step" name="checkpoint" min="0" step="1" value="0"></label>
</form>
<div class="shown" hidden>
<dl>
{_number("mutual_information", "mutual information")}
{_number("entropy_of_mean", "entropy of the mean")}
{_number("mean_entropy", "mean entropy")}
{_number("answered", "prompts answered")}
{_number("tv_to_seed", "mean to seed, TV", " data-seeded")}
</dl>
<div class="charts">
<div class="left">
<p class="key">One row a prompt, one column an option; from dark, 0, to light,
<span data-number="most"></span>; grey: not answered.
<span data-seeded>{_swatch("seed", "arrow")} the seed</span></p>
<div data-chart="heat"></div>
</div>
<div class="right">
<p class="key"><span>{_swatch("sft")} mean of the prompts</span>
<span data-seeded>{_swatch("seed", "line")} seed</span>
<span><i class="ring"></i> this prompt</span></p>
<div data-chart="bars"></div>
<p class="key"><span>{_swatch("sft", "line")} mutual information</span>
<span>{_swatch("base", "line")} entropy of the mean</span>
<span>{_swatch("base", "dashed")} mean entropy</span></p>
<div data-chart="path"></div>
</div>
</div>
{_choice("prompt", "Prompt (or point at its row)")}
<blockquote data-text="prompt"></blockquote>
<p data-text="answer"></p>
</div>
<div class="tip" aria-hidden="true" hidden></div>
<p class="failed" hidden>This browser cannot show the data. Its numbers are in the file below.</p>
</div>
"""

# --- charts of Vega


def _mark(type: str, data: str = "", **look: Any) -> dict[str, Any]:
    """A mark, or one of every row of `data`. look: expressions as text; numbers; encodings."""

    def encoded(x: Any) -> dict[str, Any]:
        if isinstance(x, dict):
            return x
        return {"signal": x} if isinstance(x, str) else {"value": x}

    rows = {"from": {"data": data}} if data else {}
    return {"type": type, **rows, "encode": {"update": {k: encoded(x) for k, x in look.items()}}}


def _chart(about: str, height: int, signals: dict, data: str, *, scales, axes, marks) -> dict:
    """A chart whose width and ink the page decides. signals: by name, with first values."""
    ink, first = {"signal": "ink"}, {"ink": "#444"} | signals
    axis = dict.fromkeys(("labelColor", "titleColor", "domainColor", "tickColor"), ink)
    axis |= {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"}
    return {
        "description": about,
        "width": 300,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding", "resize": True},
        "padding": 2,
        "background": None,
        "config": {"axis": axis, "events": {"defaults": {"prevent": False}}},
        "signals": [{"name": k, "value": x} | ON.get(k, {}) for k, x in first.items()],
        "data": [{"name": name} for name in data.split()],
        "scales": scales,
        "axes": axes,
        "marks": marks,
    }


def _names(data: str, field: str, **kind: Any) -> dict[str, Any]:
    """A scale of names along x, in the order of `at`, else those there before keep their place."""
    domain = {"data": data, "field": field, "sort": {"op": "min", "field": "at"}}
    return {"name": "x", "range": "width", "domain": domain} | kind


def _bar(field: str, type: str = "rect", **look: Any) -> dict[str, Any]:
    """A field of every option, at its place; not there where the field is not."""
    x = {"scale": "x", "field": "name"}
    across = {"width": {"scale": "x", "band": 1, "offset": -1}}
    place = {"x": x | {"band": 0.5}} if type == "symbol" else {"x": x} | across
    place |= {"y": {"scale": "y", "field": field}, "opacity": f"isValid(datum.{field}) ? 1 : 0"}
    return _mark(type, "options", **place, **look)


def _line(field: str, colour: str, dash: Sequence[int] = ()) -> dict[str, Any]:
    """A field along the checkpoints."""
    place = {"x": {"scale": "x", "field": "label"}, "y": {"scale": "y", "field": field}}
    look = {"stroke": HUES[colour], "strokeDash": [*dash], "strokeWidth": 2}
    return _mark("line", "path", **place, defined=f"isValid(datum.{field})", **look)


HUES = {name: {"value": colour} for name, colour in COLOURS.items()}
POINTED = "clamp(floor(y() * rows / height), 0, rows - 1)"
ON = {"row": {"on": [{"events": "pointermove, pointerdown", "update": POINTED}]}}
OPTIONS = _names("options", "name", type="band", padding=0)
UP = {"name": "y", "type": "linear", "range": "height", "domain": [0, {"signal": "top"}]}
BELOW = {"orient": "bottom", "scale": "x", "labelOverlap": True}
LEFT = {"orient": "left", "scale": "y", "tickCount": 4}
PICTURE = {"image": {"field": "image"}, "aspect": False, "smooth": False}
ARROW = {"shape": {"value": "triangle-left"}, "size": 28, "fill": HUES["seed"]}
AT = {"scale": "x", "signal": "at"}
ROW = {"y": "row * height / rows", "height": "max(height / rows, 3)"}
CHARTS = {
    "heat": _chart(
        "Heat map of what every prompt is answered; the text below is of the row chosen.",
        400,
        {"rows": 1, "row": 0},
        "picture options seed",
        scales=[OPTIONS],
        axes=[BELOW | {"ticks": False, "domain": False}],
        marks=[
            _mark("image", "picture", width="width", height="height", **PICTURE),
            _mark("rect", width="width", **ROW, stroke="ink", strokeWidth=2),
            _mark("symbol", "seed", x="width + 5", y="(datum.data + 0.5) * height / rows", **ARROW),
        ],
    ),
    "bars": _chart(
        "Probability of every option: mean of the prompts, the seed, and the row chosen.",
        150,
        {"top": 1},
        "options",
        scales=[OPTIONS, UP],
        axes=[BELOW | {"ticks": False}, LEFT | {"title": "probability"}],
        marks=[
            _bar("mean", y2={"scale": "y", "value": 0}, fill=HUES["sft"]),
            _bar("seed", height=3, fill=HUES["seed"]),
            _bar("own", "symbol", size=30, stroke="ink"),
        ],
    ),
    "path": _chart(
        "Mutual information, entropy of the mean and mean entropy at every checkpoint.",
        150,
        {"top": 1, "at": 0},
        "path",
        scales=[_names("path", "label", type="point", padding=0.5), UP],
        axes=[BELOW | {"title": "checkpoint"}, LEFT | {"title": "bits"}],
        marks=[
            _mark("rule", x=AT, y2="height", stroke="ink", strokeOpacity=0.5),
            _line("entropy_of_mean", "base"),
            _line("mean_entropy", "base", (5, 3)),
            _line("mutual_information", "sft"),
        ],
    ),
}
