"""How far a long walk is, on a terminal or in a job's log."""

from __future__ import annotations

import sys

from tqdm import tqdm

SELDOM = 60.0  # seconds between two looks where nobody watches: a scheduler keeps every one of them


def bar(total: int, name: str) -> tqdm:
    """Of `total` cells; name what they are of by `set_postfix_str(..., refresh=False)`."""
    return tqdm(total=total, unit=" cells", desc=name, mininterval=0.1 if sys.stderr.isatty() else SELDOM)
