"""How far a long walk is, on a terminal or in a job's log."""

from __future__ import annotations

import sys

from tqdm import tqdm

SELDOM = 60.0  # seconds between two looks where nobody watches: a scheduler keeps every one of them


def bar(total: int, name: str, unit: str = "cells", delay: float = 0) -> tqdm:
    """Of `total` cells; name what they are of by `set_postfix_str(..., refresh=False)`.

    delay: seconds before it is shown at all.
    """
    often = 0.1 if sys.stderr.isatty() else SELDOM
    return tqdm(total=total, unit=f" {unit}", desc=name, mininterval=often, delay=delay)
