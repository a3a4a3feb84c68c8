"""Who computed a shard, and with what."""

from __future__ import annotations

import contextlib
import importlib.metadata
import subprocess
from datetime import UTC, datetime
from typing import Any

from .. import __version__
from ..files import root


def producer(*, engine: str, device: str, dtype: str, seconds: float) -> dict:
    """Who computed a shard: versions, commit, device, engine, dtype, seconds, time of writing."""
    return {
        "crystal": __version__, "commit": _commit(), "engine": engine, "device": device,
        "dtype": dtype, "seconds": round(seconds, 3), "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def device_name(device: Any) -> str:
    """A torch device, a GPU with its name."""
    if not str(device).startswith("cuda"):
        return str(device)
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def versions() -> dict[str, str]:
    """Of the packages a read-out depends on, as they are installed here."""
    return {name: _version(name) for name in ("torch", "transformers", "numpy")}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _commit() -> str:
    """With -dirty where tracked files differ from the commit; "unknown" outside a repository."""
    command = ["git", "-C", str(root()), "describe", "--always", "--dirty", "--abbrev=40",
               "--exclude=*"]
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() or "unknown"
    return "unknown"
