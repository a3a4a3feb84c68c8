"""Names on the lines of a figure, where every line has room for its own in some panel.

Pixels in, pixels out: `fig` has its layout, and nothing else is known of what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product, starmap
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation

GAP, APART = 3, 5  # points from a name to its own line, and at least to all others
FINE = 2  # pixels between two points that stand for a line


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
    """Points of a line every FINE pixels, without those that do not exist."""
    vertices = np.reshape(vertices, (-1, 2))  # of an interval that does not exist: no pair at all
    there = vertices[np.isfinite(vertices).all(1)]
    if len(there) < 2:
        return there
    way = np.append(0, np.cumsum(np.hypot(*np.diff(there, axis=0).T)))
    at = np.linspace(0, way[-1], int(min(way[-1], 1e4) / FINE) + 2)
    return np.column_stack([np.interp(at, way, each) for each in there.T])
