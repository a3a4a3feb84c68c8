"""How many processes may compute side by side."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may run on, where the system says so (Linux does, macOS does not); else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
