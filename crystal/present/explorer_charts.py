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


def _inked(**spec: Any) -> dict[str, Any]:
    """A spec whose size and ink the page decides."""
    signals = [{"name": "ink", "value": "#444"}, *spec.pop("signals", [])]
    ink = {"signal": "ink"}
    axis = {"labelColor": ink, "titleColor": ink, "domainColor": ink, "tickColor": ink}
    axis |= {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"}
    return {
        "width": 300,
        "autosize": {"type": "fit", "contains": "padding", "resize": True},
        "padding": 2,
        "background": None,
        "signals": signals,
        "config": {"axis": axis, "events": {"defaults": {"prevent": False}}},
        **spec,
    }


_SIZE = {"width": {"signal": "width"}, "height": {"signal": "height"}}
_NAMES = {"name": "x", "type": "band", "range": "width", "padding": 0}
_SORT = {"op": "min", "field": "at"}  # else what stood there before keeps its place
_NAMES |= {"domain": {"data": "options", "field": "name", "sort": _SORT}}
_OPTIONS = {"orient": "bottom", "scale": "x", "labelOverlap": True, "ticks": False}
_UP = {"name": "y", "type": "linear", "range": "height", "domain": [0, {"signal": "top"}]}
_LEFT = {"orient": "left", "scale": "y", "tickCount": 4}
_AMONG = "clamp(floor({0}() * {1} / {2}), 0, {1} - 1)"
_POINT = "pointermove, pointerdown"

HEAT = _inked(
    description="Heat map of what every prompt is answered; the text below is of the row chosen.",
    height=400,
    signals=[
        {"name": "rows", "value": 1},
        {
            "name": "row",
            "value": 0,
            "on": [{"events": _POINT, "update": _AMONG.format("y", "rows", "height")}],
        },
    ],
    data=[{"name": "picture"}, {"name": "options"}, {"name": "seed"}],
    scales=[_NAMES],
    axes=[_OPTIONS | {"domain": False}],
    marks=[
        {
            "type": "image",
            "from": {"data": "picture"},
            "encode": {
                "update": _SIZE
                | {"image": {"field": "image"}, "aspect": {"value": False}}
                | {"smooth": {"value": False}}
            },
        },
        {
            "type": "rect",
            "encode": {
                "update": {
                    "width": {"signal": "width"},
                    "y": {"signal": "row * height / rows"},
                    "height": {"signal": "max(height / rows, 3)"},
                    "stroke": {"signal": "ink"},
                    "strokeWidth": {"value": 2},
                }
            },
        },
        {
            "type": "symbol",
            "from": {"data": "seed"},
            "encode": {
                "update": {
                    "x": {"signal": "width + 5"},
                    "y": {"signal": "(datum.data + 0.5) * height / rows"},
                    "shape": {"value": "triangle-left"},
                    "size": {"value": 28},
                    "fill": {"value": COLOURS["seed"]},
                }
            },
        },
    ],
)


def _bar(field: str, look: dict[str, Any], type: str = "rect") -> dict[str, Any]:
    x = {"scale": "x", "field": "name"}
    place = {"x": x, "width": {"scale": "x", "band": 1, "offset": -1}}
    place |= {"y": {"scale": "y", "field": field}}
    place |= {"opacity": {"signal": f"isValid(datum.{field}) ? 1 : 0"}}
    if type == "symbol":
        place["x"] = x | {"band": 0.5}
        del place["width"]
    return {"type": type, "from": {"data": "options"}, "encode": {"update": place | look}}


BARS = _inked(
    description="Probability of every option: mean of the prompts, the seed, and the row chosen.",
    height=150,
    signals=[{"name": "top", "value": 1}],
    data=[{"name": "options"}],
    scales=[_NAMES, _UP],
    axes=[_OPTIONS, _LEFT | {"title": "probability"}],
    marks=[
        _bar("mean", {"y2": {"scale": "y", "value": 0}, "fill": {"value": COLOURS["sft"]}}),
        _bar("seed", {"height": {"value": 3}, "fill": {"value": COLOURS["seed"]}}),
        _bar("own", {"size": {"value": 30}, "stroke": {"signal": "ink"}}, "symbol"),
    ],
)

PATH = _inked(
    description="Mutual information, entropy of the mean and mean entropy at every checkpoint.",
    height=150,
    signals=[{"name": "top", "value": 1}, {"name": "at", "value": 0}],
    data=[{"name": "path"}],
    scales=[
        {
            "name": "x",
            "type": "point",
            "range": "width",
            "domain": {"data": "path", "field": "label", "sort": _SORT},
            "padding": 0.5,
        },
        _UP,
    ],
    axes=[
        {"orient": "bottom", "scale": "x", "labelOverlap": True, "title": "checkpoint"},
        _LEFT | {"title": "bits"},
    ],
    marks=[
        {
            "type": "rule",
            "encode": {
                "update": {
                    "x": {"scale": "x", "signal": "at"},
                    "y2": {"signal": "height"},
                    "stroke": {"signal": "ink"},
                    "strokeOpacity": {"value": 0.5},
                }
            },
        },
        *(
            {
                "type": "line",
                "from": {"data": "path"},
                "encode": {
                    "update": {
                        "x": {"scale": "x", "field": "label"},
                        "y": {"scale": "y", "field": field},
                        "defined": {"signal": f"isValid(datum.{field})"},
                        "stroke": {"value": COLOURS[colour]},
                        "strokeDash": {"value": dash},
                        "strokeWidth": {"value": 2},
                    }
                },
            }
            for field, colour, dash in (
                ("entropy_of_mean", "base", []),
                ("mean_entropy", "base", [5, 3]),
                ("mutual_information", "sft", []),
            )
        ),
    ],
)

SPECS = {"heat": HEAT, "bars": BARS, "path": PATH}
