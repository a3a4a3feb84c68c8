"""How many processes may compute side by side."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may use: what a scheduler or a container leaves it, where the system says so (macOS does not)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
