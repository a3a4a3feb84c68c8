"""Drawings by matplotlib, as text: how small their letters are, and the same on a dark ground."""

from __future__ import annotations

import re

READABLE = 9  # CSS pixels: the smallest text of a figure, however narrow the screen


def smallest(svg: str) -> float:
    """The size of the smallest text of a drawing by matplotlib, in points.

    matplotlib draws letters a hundred times their size in points, and scales them; exponents again.
    """
    sizes = [100 * float(scale) for scale in re.findall(r"scale\(([\d.]+) -\1\)", svg)]
    return min(sizes, default=10.0) * (0.7 if " scale(0.7)" in svg else 1)


def on_dark(svg: str) -> str:
    """The same drawing for a dark ground: greys are mirrored, colours stay."""

    def mirrored(grey: re.Match) -> str:
        return "#" + f"{round(0xE6 - int(grey[1], 16) * 0.82):02x}" * 3

    svg = re.sub(r"#([0-9a-f]{2})\1\1\b", mirrored, svg)
    return svg.replace("<svg ", '<svg fill="#e6e6e6" ', 1)  # matplotlib leaves black out
