"""Names on the lines of a figure, where every line has room for its own in some panel.

Pixels in, pixels out: `fig` has its layout, and nothing else is known of what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation

GAP, APART = 3, 5  # points from a name to its own line, and at least to all others
FINE = 2  # pixels between two points that stand for a line
ABOVE, BELOW = (GAP, "bottom"), (-GAP, "top")


def name_lines(fig: Figure, wanted: Mapping[str, object]) -> bool:
    """Put each name of `wanted` (name -> legend handle) on its line, all in one panel if they fit
    there; False, and nothing is drawn, where a handle is no line or a name has no room.

    A name stands clear of everything drawn, and of other lines so far that nobody takes it for
    theirs. Names are in ink: colours of lines are too light for small letters.
    """
    from matplotlib.lines import Line2D

    lines = [one for one in wanted.values() if isinstance(one, Line2D)]
    if len(lines) < len(wanted) or any(one.get_linestyle() == "None" for one in lines):
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
        broken = "\n".join(filter(None, (" ".join(words[:half]), " ".join(words[half:]))))
        tries = ((ax, line, text) for text in (name, broken) for ax in axes for line in ax.lines)
        places = (_name(*one) for one in tries if one[1].get_label() == name)
        text = next(filter(None, places), None)
        if text is None:
            for one in put:
                one.remove()
            return False
        put.append(text)
    return True


def _name(ax: Axes, line: Line2D, name: str) -> Annotation | None:
    """The name on a line, where it stands freest."""
    at = {"xycoords": "axes fraction", "textcoords": "offset points", "linespacing": 1}
    text = ax.annotate(name, (0, 0), (0, 0), annotation_clip=False, **at)
    text.set_in_layout(False)
    box = text.get_window_extent()
    others = _drawn(ax, text)
    place = _place(ax, line, (box.width, box.height), others)
    if place is None:
        text.remove()
        return None
    at, (up, align), across = place
    text.xy, text.xycoords = ax.transData.inverted().transform(at), "data"
    text.set(position=(0, up), va=align, ha=across)
    return text


def _place(ax: Axes, line: Line2D, size: tuple[float, float], others: list) -> tuple | None:
    """Where a name of that size stands freest: a point of its line, side and alignment."""
    wide, tall = size
    pixels = ax.figure.dpi / 72
    own = next(points for what, points in others if what is line)
    hue, unnamed = line.get_color(), (one for one in ax.lines if one.get_label().startswith("_"))
    alike = [line, *(one for one in unnamed if one.get_color() == hue)]
    near = np.concatenate([points for what, points in others if what in alike])
    far = np.concatenate([own[:0], *(points for what, points in others if what not in alike)])
    best, found = APART * pixels, None
    for x, y in own[:: max(1, len(own) // 60)]:
        for side in (ABOVE, BELOW):
            foot = y + side[0] * pixels - (tall if side is BELOW else 0)
            for across, left in (("center", x - wide / 2), ("left", x), ("right", x - wide)):
                box = np.array([[left, foot], [left + wide, foot + tall]])
                inside = ax.bbox.padded(1).count_contains(box) == 2
                if inside and _clearance(box, near) > 1:
                    room = min(_clearance(box, far), 6 * APART * pixels)
                    if room > best:
                        best, found = room, ((x, y), side, across)
    return found


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
    texts = (text for text in ax.texts if text is not new)
    return [*found, *((text, _frame(text.get_window_extent())) for text in texts)]


def _along(vertices: np.ndarray) -> np.ndarray:
    """Points of a line every FINE pixels, without those that do not exist."""
    vertices = np.reshape(vertices, (-1, 2))  # of an interval that does not exist: no pair at all
    there = vertices[np.isfinite(vertices).all(1)]
    if len(there) < 2:
        return there
    way = np.append(0, np.cumsum(np.hypot(*np.diff(there, axis=0).T)))
    at = np.linspace(0, way[-1], int(min(way[-1], 1e4) / FINE) + 2)
    return np.column_stack([np.interp(at, way, each) for each in there.T])


def _frame(box) -> np.ndarray:
    """Corners and edges of a text's box."""
    x, y = np.linspace(box.x0, box.x1, 12), np.linspace(box.y0, box.y1, 4)
    return np.array([(one, other) for one in x for other in y])
