"""A Ray cluster, joined or made: where it is, and how many workers have room on its nodes.

Knows what a rung takes of a node; knows nothing of what workers do.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping, Sequence
from types import ModuleType

from ..ask.ladders import DTYPES, Ladder, Rung, is_here
from ..errors import CrystalError
from ..files import PACKAGE

ROOM = 1.2  # memory to declare, as a multiple of a rung's weights: on their way to a GPU they pass through it, too


def ray_module() -> ModuleType:
    """Raises: CrystalError if Ray is not installed."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise CrystalError("--cluster needs Ray, which is not installed", mend="pip install '.[cluster]'") from error
    return ray


def threads_of_a_worker() -> int:
    """As many as OMP_NUM_THREADS gives to this process, else one."""
    said = os.environ.get("OMP_NUM_THREADS", "1")
    if not said.isdecimal() or int(said) < 1:
        raise CrystalError(f"OMP_NUM_THREADS is {said!r}, and each worker takes that number of threads",
                           mend="export OMP_NUM_THREADS=1")
    return int(said)


def address() -> str:
    """Of the cluster: RAY_ADDRESS, or "local", this machine."""
    return os.environ.get("RAY_ADDRESS") or "local"


def connect(ray: ModuleType, processors: int) -> bool:
    """Join the cluster, or make one; False if this process had joined before, and is not to leave it.

    Raises: CrystalError if it cannot be reached, or runs other versions of Ray or Python.
    """
    if ray.is_initialized():
        return False
    where, how = address(), {"log_to_driver": False, "logging_level": "error"}
    if where == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        how |= {"num_cpus": max(os.cpu_count() or 1, processors), "include_dashboard": False,
                "object_store_memory": 2**27}  # bytes; laws are small, and a third of the memory is Ray's default
    else:
        how["runtime_env"] = {"py_modules": [str(PACKAGE)]}  # every worker runs this very code
        _knock(where)
    try:
        ray.init(address=where, **how)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise _unreachable(where, first_line(error)) from error
    return True


def _knock(where: str) -> None:
    """Ray itself tries for a minute, and then ends the process without a word that could be caught."""
    host, _, port = where.rpartition(":")
    if "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise _unreachable(where, error.strerror or str(error)) from error


def _unreachable(where: str, why: str) -> CrystalError:
    return CrystalError(f"the Ray cluster cannot be reached: {why}", where=f"RAY_ADDRESS={where}",
                        mend="ray start --head there (RAY_AUTH_MODE=token on every node and here, if there is a token), or unset "
                             "RAY_ADDRESS for workers on this machine")


def first_line(error: BaseException) -> str:
    """What an error of Ray's says, without the pages behind it."""
    return str(error).strip().split("\n")[0].rstrip(".")


def resources(ray: ModuleType) -> list[Mapping[str, float]]:
    """Of each node that is alive, by Ray's names: CPU, GPU, memory in bytes."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def need_of(ladder: Ladder, rungs: Sequence[Rung], threads: int, gpus: float) -> dict[str, float]:
    """What a worker takes of its node, by the same names: memory for the largest rung it may be handed.

    The memory of a GPU is nothing Ray counts: that the weights fit on the GPUs of a worker is for whoever hires to see to.
    """
    return {"CPU": threads, "GPU": gpus, "memory": math.ceil(ROOM * max(_weights(ladder, rung) for rung in rungs))}


def _weights(ladder: Ladder, rung: Rung) -> int:
    """Bytes; 0 where nobody here knows."""
    known = rung.parameters * DTYPES[ladder.dtype]
    return known or (rung.weights.stat().st_size if rung.local and is_here(rung) else 0)


def room_for(nodes: Sequence[Mapping[str, float]], need: Mapping[str, float]) -> int:
    """How many workers fit on the nodes, all of them free.

    Raises: CrystalError if not one does.
    """
    room = sum(math.floor(min(node.get(name, 0) / amount for name, amount in need.items() if amount)) for node in nodes)
    if not room:
        what = f"{need['CPU']:g} processors, {need['GPU']:g} GPUs and {need['memory'] / 1e9:.3g} GB of memory"
        raise CrystalError(f"no node of the cluster has room for a worker, which takes {what}", where=address(),
                           mend="fewer --gpus-per-worker, a smaller OMP_NUM_THREADS, or larger nodes")
    return room
