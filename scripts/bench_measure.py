"""How the benchmarks measure: contestants in turns, token positions counted at the model itself, files written whole."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from crystal.files import root, write_file
from crystal.keep import sums

PEERS = {"lm_eval": "lm-eval"}  # module -> distribution; no dependency of this repository
PATIENCE = 20.0  # seconds: a contestant that has been measured for so long takes no further turn
MEASURED_WITH = (
    "scripts/bench*.py", "crystal/read/automaton.py", "crystal/read/tree.py",
    "crystal/read/engine.py", "crystal/read/masses.py", "crystal/read/proof.py",
    "crystal/read/readout.py", "crystal/read/sampling.py", "crystal/read/least.py",
    "crystal/read/recorded.py", "crystal/keep/batches.py",
)

Work = Callable[[], object]


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def left_out() -> dict[str, str]:
    """Peers that are not measured, and why."""
    return {name: "not installed, left out" for module, name in PEERS.items() if not installed(module)}


@contextmanager
def counted(model: torch.nn.Module) -> Iterator[list[int]]:
    """A list that grows by the token positions, padding included, of every forward of `model`, whoever calls it."""
    positions: list[int] = []

    def count(_, args: tuple, kwargs: dict) -> None:
        positions.append((kwargs["input_ids"] if "input_ids" in kwargs else args[0]).numel())

    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield positions
    finally:
        handle.remove()


def race(model: torch.nn.Module, contestants: Mapping[str, Work], repeats: int, /, **common: object) -> list[dict]:
    """One row a contestant: `common`, seconds (median), low, high, runs, tokens.

    Everybody runs once to warm up, with tokens counted; then in turns, the first place going round, so that a noisy
    minute falls on all. With no repeats the first run is the measurement, for work so long that warmth is nothing to it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    tokens, names = {}, list(contestants)
    for name, work in contestants.items():
        with counted(model) as positions:
            first = _timed(work)
        tokens[name] = sum(positions)
        if not repeats:
            seconds[name].append(first)
    for turn in range(repeats):
        for name in names[turn % len(names):] + names[: turn % len(names)]:
            if sum(seconds[name]) < PATIENCE:
                seconds[name].append(_timed(contestants[name]))
    return [{**common, "contestant": name, "seconds": statistics.median(s), "low": min(s), "high": max(s), "runs": len(s),
             "tokens": tokens[name]} for name, s in seconds.items()]


def _timed(work: Work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def provenance() -> dict:
    """What a number depends on besides the code; machines are named by their processor only."""
    names = ("torch", "transformers", "tokenizers", "numpy", *PEERS.values())
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return {"source": source(), "python": platform.python_version(), **found, "processor": processor(),
            "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": [round(x, 2) for x in os.getloadavg()]}


def source() -> str:
    """sha256 of the code that measures and the code that is measured."""
    files = sorted(path for glob in MEASURED_WITH for path in root().glob(glob))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def processor() -> str:
    """As the kernel names it; the architecture where it does not."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


def peak_mebibytes() -> float | None:
    """The most memory that this process has held, from the kernel's high-water mark; None where the kernel keeps none.

    Not `getrusage`: its maximum is inherited from the process that started this one.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


def child(code: str) -> subprocess.Popen:
    """A process of its own that runs `code` beside these scripts; what it prints last are rows, a JSON object a line."""
    path = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ | path)


def said(process: subprocess.Popen) -> list[dict]:
    """Its rows, once it has ended. Raises: CalledProcessError if it failed."""
    out, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def ceiling(size: int = 2048, device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Operations a second of a square matrix product: what no code of ours exceeds."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / drained(lambda: a @ b, device)


def drained(work: Work, device: str, repeats: int = 5) -> float:
    """Median wall seconds, the device's queue drained before and after; one run to warm up."""
    work()
    taken = []
    for _ in range(repeats):
        drain(device)
        taken.append(_timed(lambda: (work(), drain(device))))
    return statistics.median(taken)


def drain(device: str) -> None:
    """Wait until a GPU has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def write(path: Path, value: dict) -> None:
    """The whole file or the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sums.keeping():
        write_file(path, (json.dumps(value, indent=1) + "\n").encode())
