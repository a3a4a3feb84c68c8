"""What the explorer looks like: its element, and its charts as specs of Vega.

Vega alone, without Altair and Vega-Lite: these draw the heat map as up to 10,000 rectangles, which
takes 50 ms a step; Vega has a mark for a picture, which takes less than a frame.
"""

from __future__ import annotations

from typing import Any

from .figures import COLOURS


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


def _value(value: Any) -> dict[str, Any]:
    return {"value": value}


def _signal(expression: str) -> dict[str, Any]:
    return {"signal": expression}


def _mark(type: str, data: str = "", **update: Any) -> dict[str, Any]:
    """A mark, or one of every row of `data`; update: its encodings."""
    rows = {"from": {"data": data}} if data else {}
    return {"type": type, **rows, "encode": {"update": update}}


def _spec(**spec: Any) -> dict[str, Any]:
    """A spec whose size and ink the page decides."""
    axis = dict.fromkeys(("labelColor", "titleColor", "domainColor", "tickColor"), _INK)
    axis |= {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"}
    return {
        "width": 300,
        "autosize": {"type": "fit", "contains": "padding", "resize": True},
        "padding": 2,
        "background": None,
        "config": {"axis": axis, "events": {"defaults": {"prevent": False}}},
        **spec,
        "signals": [{"name": "ink", "value": "#444"}, *spec["signals"]],
    }


_INK = _signal("ink")
_SORT = {"op": "min", "field": "at"}  # else what stood there before keeps its place
_NAMES = {"name": "x", "type": "band", "range": "width", "padding": 0}
_NAMES |= {"domain": {"data": "options", "field": "name", "sort": _SORT}}
_OPTIONS = {"orient": "bottom", "scale": "x", "labelOverlap": True, "ticks": False}
_UP = {"name": "y", "type": "linear", "range": "height", "domain": [0, _signal("top")]}
_LEFT = {"orient": "left", "scale": "y", "tickCount": 4}
_POINTED = {
    "events": "pointermove, pointerdown",
    "update": "clamp(floor(y() * rows / height), 0, rows - 1)",
}

HEAT = _spec(
    description="Heat map of what every prompt is answered; the text below is of the row chosen.",
    height=400,
    signals=[{"name": "rows", "value": 1}, {"name": "row", "value": 0, "on": [_POINTED]}],
    data=[{"name": "picture"}, {"name": "options"}, {"name": "seed"}],
    scales=[_NAMES],
    axes=[_OPTIONS | {"domain": False}],
    marks=[
        _mark(
            "image",
            "picture",
            width=_signal("width"),
            height=_signal("height"),
            image={"field": "image"},
            aspect=_value(False),
            smooth=_value(False),
        ),
        _mark(
            "rect",
            width=_signal("width"),
            y=_signal("row * height / rows"),
            height=_signal("max(height / rows, 3)"),
            stroke=_INK,
            strokeWidth=_value(2),
        ),
        _mark(
            "symbol",
            "seed",
            x=_signal("width + 5"),
            y=_signal("(datum.data + 0.5) * height / rows"),
            shape=_value("triangle-left"),
            size=_value(28),
            fill=_value(COLOURS["seed"]),
        ),
    ],
)


def _bar(field: str, type: str = "rect", **look: Any) -> dict[str, Any]:
    """A field of every option, at its place; not there where the field is not."""
    x = {"scale": "x", "field": "name"}
    across = {"width": {"scale": "x", "band": 1, "offset": -1}}
    place = {"x": x | {"band": 0.5}} if type == "symbol" else {"x": x} | across
    there = _signal(f"isValid(datum.{field}) ? 1 : 0")
    return _mark(type, "options", **place, y={"scale": "y", "field": field}, opacity=there, **look)


BARS = _spec(
    description="Probability of every option: mean of the prompts, the seed, and the row chosen.",
    height=150,
    signals=[{"name": "top", "value": 1}],
    data=[{"name": "options"}],
    scales=[_NAMES, _UP],
    axes=[_OPTIONS, _LEFT | {"title": "probability"}],
    marks=[
        _bar("mean", y2={"scale": "y", "value": 0}, fill=_value(COLOURS["sft"])),
        _bar("seed", height=_value(3), fill=_value(COLOURS["seed"])),
        _bar("own", "symbol", size=_value(30), stroke=_INK),
    ],
)


def _line(field: str, colour: str, dash: list[int]) -> dict[str, Any]:
    """A field along the checkpoints."""
    return _mark(
        "line",
        "path",
        x={"scale": "x", "field": "label"},
        y={"scale": "y", "field": field},
        defined=_signal(f"isValid(datum.{field})"),
        stroke=_value(COLOURS[colour]),
        strokeDash=_value(dash),
        strokeWidth=_value(2),
    )


_CHECKPOINTS = {"name": "x", "type": "point", "range": "width", "padding": 0.5}
_CHECKPOINTS |= {"domain": {"data": "path", "field": "label", "sort": _SORT}}
_AT = {"x": {"scale": "x", "signal": "at"}, "y2": _signal("height")}

PATH = _spec(
    description="Mutual information, entropy of the mean and mean entropy at every checkpoint.",
    height=150,
    signals=[{"name": "top", "value": 1}, {"name": "at", "value": 0}],
    data=[{"name": "path"}],
    scales=[_CHECKPOINTS, _UP],
    axes=[
        {"orient": "bottom", "scale": "x", "labelOverlap": True, "title": "checkpoint"},
        _LEFT | {"title": "bits"},
    ],
    marks=[
        _mark("rule", **_AT, stroke=_INK, strokeOpacity=_value(0.5)),
        _line("entropy_of_mean", "base", []),
        _line("mean_entropy", "base", [5, 3]),
        _line("mutual_information", "sft", []),
    ],
)

SPECS = {"heat": HEAT, "bars": BARS, "path": PATH}
