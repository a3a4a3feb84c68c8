"""The batches of a plan, read by workers on Ray: where RAY_ADDRESS says, else on this machine.

A worker is an actor that holds one checkpoint and reads a batch at a time. What workers return
comes out in the plan's order, so that the store cannot tell how many there were. Ray restarts a
worker that dies, and tries its work again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from ..ask.ladders import DTYPES, Checkpoint, Ladder, is_here
from ..errors import CrystalError
from ..files import PACKAGE, root
from ..texts import reason
from . import manifest
from .resample import Batch, Plan, Read, Reader

TRIES = 3  # of the same batch, each the death of its worker, before it is given up
LOST = 2  # batches of a checkpoint, before what waits of it is given up, too: it may not even load
WAIT = 0.5  # seconds between looks at whether somebody wants to stop
ROOM = 1.2  # memory to declare x a checkpoint's weights, which pass through it to a GPU
INSTALL = "install requirements/full.txt on every node, and start Ray from that environment"


class Hire(NamedTuple):
    """How many workers, and how many GPUs each of them has to itself."""

    workers: int | None = None  # None: as many as the cluster has room for
    gpus: float | None = None  # None: one, if the cluster has any. A half puts two workers on one

    def __call__(self, plan: Plan) -> Iterator[Read]:
        """Every batch, in the plan's order.

        An error, Ctrl-C or SIGTERM stops the work; what is finished comes out before that goes on.
        Raises: CrystalError if Ray is not installed, its cluster not reached or too small, a worker
        cannot read, batches were given up (at the end), or the work was stopped.
        """
        try:
            import ray
        except ModuleNotFoundError as error:
            what = "--cluster needs Ray, which is not installed"
            raise CrystalError(what, hint="pip install '.[cluster]'") from error
        number = os.environ.get("OMP_NUM_THREADS", "1")
        if not number.isdecimal() or int(number) < 1:
            what = f"OMP_NUM_THREADS is {number!r}, and each worker takes that number of threads"
            raise CrystalError(what, hint="export OMP_NUM_THREADS=1")
        with contextlib.ExitStack() as leaving:
            if connect(ray, int(number) * (self.workers or 1)):
                leaving.callback(ray.shutdown)
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            any_gpu = any(node.get("GPU") for node in nodes)
            gpus = float(any_gpu) if self.gpus is None else self.gpus
            if not gpus and plan.device is None:
                plan = dataclasses.replace(plan, device="cpu")  # an unasked-for GPU is still seen
            need = need_of(plan.ladder, plan.checkpoints, int(number), gpus)
            room = room_for(nodes, need)
            return _reads(ray, plan, need, self.workers or room, leaving.pop_all())


# -- where, and how much room


def address() -> str:
    """Of the cluster: RAY_ADDRESS, or "local", this machine."""
    return os.environ.get("RAY_ADDRESS") or "local"


def connect(ray: ModuleType, processors: int) -> bool:
    """Join the cluster, or make one; False if this process had joined before, and is not to leave.

    Raises: CrystalError if that fails, as where Ray or Python is of another version.
    """
    if ray.is_initialized():
        return False
    where, how = address(), {"log_to_driver": False, "logging_level": "error"}
    if where == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        how |= {"num_cpus": max(os.cpu_count() or 1, processors), "include_dashboard": False}
        how["object_store_memory"] = 2**27  # bytes; Ray's default is a third of the memory
    else:
        how["runtime_env"] = {"py_modules": [str(PACKAGE)]}  # every worker runs this very code
    try:
        host, _, port = where.rpartition(":")
        if "/" not in host and port.isdecimal():  # Ray tries for a minute, then ends the process
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address=where, **how)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        why = getattr(error, "strerror", None) or reason(error)
        raise CrystalError(
            f"the Ray cluster cannot be reached: {why}",
            where=f"RAY_ADDRESS={where}",
            hint="ray start --head there (RAY_AUTH_MODE=token on every node and here, if there is "
            "a token), or unset RAY_ADDRESS for workers on this machine",
        ) from error
    return True


def need_of(
    ladder: Ladder, checkpoints: Sequence[Checkpoint], threads: int, gpus: float
) -> dict[str, float]:
    """What a worker takes of its node; memory in bytes, for the largest checkpoint."""
    weights = [0]  # of those of which nobody here knows more
    for one in checkpoints:
        weights.append(one.parameters * DTYPES[ladder.dtype])
        if not one.parameters and one.local and is_here(one):
            weights.append(one.weights.stat().st_size)
    return {"CPU": threads, "GPU": gpus, "memory": math.ceil(ROOM * max(weights))}


def room_for(nodes: Sequence[Mapping[str, float]], need: Mapping[str, float]) -> int:
    """How many workers fit on the nodes, all of them free. Raises: CrystalError if not one does."""
    wanted = {name: amount for name, amount in need.items() if amount}
    room = sum(int(min(node.get(name, 0) / wanted[name] for name in wanted)) for node in nodes)
    if not room:
        what = "no node of the cluster has room for a worker, which takes "
        what += f"{need['CPU']:g} processors, {need['GPU']:g} GPUs "
        what += f"and {need['memory'] / 1e9:.3g} GB of memory"
        hint = "fewer --gpus-per-worker, a smaller OMP_NUM_THREADS, or larger nodes"
        raise CrystalError(what, where=address(), hint=hint)
    return room


# -- a worker


class Worker:
    """Lives in a process of its own, with whatever it needs to begin anew if that dies."""

    def __init__(self, plan: Plan, threads: int, home: str) -> None:
        os.environ.setdefault("CRYSTAL_ROOT", home)  # a node may say another place itself
        self.plan, self.threads, self.reader = plan, threads, None

    versions = staticmethod(manifest.versions)

    def read(self, batch: Batch) -> Read:
        """Read a batch. Raises: CrystalError."""
        host = socket.gethostname()
        try:
            if self.reader is None or self.reader.checkpoint.name != batch.checkpoint:
                self.load(batch.checkpoint)
            return self.reader.read(batch)
        except CrystalError as error:
            where = f"{error.where or 'a worker'}, on {host}"
            raise CrystalError(error.what, where=where, hint=error.hint) from None
        except ModuleNotFoundError as error:
            what = f"a worker lacks the package {error.name}"
            raise CrystalError(what, where=host, hint=INSTALL) from error

    def load(self, checkpoint: str) -> None:
        """Take up a checkpoint, with exactly the weights that its ladder names."""
        import torch

        if self.reader:
            self.reader.machine.unload()
        self.reader, wanted = None, self.plan.ladder.checkpoint(checkpoint)
        if not is_here(wanted):
            what = f"a worker lacks the weights of checkpoint {checkpoint!r} of {wanted.ladder}"
            hint = "keep the repository where all nodes see it (on a node, CRYSTAL_ROOT names it)"
            raise CrystalError(what, where=root() / wanted.source, hint=hint)
        torch.set_num_threads(self.threads)  # another number would sum in another order
        self.reader = Reader(self.plan, wanted)


# -- what is handed to whom, and when it comes out


class Board:
    """Which batches of a plan wait, are done (None: given up), and come out. Knows no Ray."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.lost = plan, []
        self.order = deque(plan.batches())
        self.waiting = self.order.copy()
        self.done: dict[Batch, Read | None] = {}

    def drop(self, batch: Batch) -> None:
        """Give a batch up; with LOST of a checkpoint, what waits of it."""
        self.lost.append(batch)
        if sum(one.checkpoint == batch.checkpoint for one in self.lost) == LOST:
            self.lost += [one for one in self.waiting if one.checkpoint == batch.checkpoint]
            self.waiting = deque(one for one in self.waiting if one.checkpoint != batch.checkpoint)
        self.done |= dict.fromkeys(self.lost)

    def out(self, gaps: bool = False) -> Iterator[Read]:
        """What is done, in the plan's order; gaps: though what comes before it may be missing."""
        while self.order and (gaps or self.order[0] in self.done):
            if read := self.done.pop(self.order.popleft(), None):
                yield read

    def left_out(self) -> str:
        named, cells = [], 0
        for one in self.lost:
            asked = self.plan.asked(one)
            cells += len(asked.prompts)
            of = f"checkpoint {one.checkpoint}, {asked.form}, task {one.task}"
            named.append(f"{of}, prompts {asked.prompts[0].id} to {asked.prompts[-1].id}")
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        what = f"{cells} cells are left out, their workers died {TRIES} times"
        return f"{what}: {'; '.join(named[:5])}{more}"


def _reads(
    ray: ModuleType,
    plan: Plan,
    need: Mapping[str, float],
    workers: int,
    leaving: contextlib.ExitStack,
) -> Iterator[Read]:
    board, name, actors, given = Board(plan), plan.ladder.name, [], ray.put(plan)
    again = f"crystal resample {name} --cluster --missing-only"
    amounts = {"num_cpus": need["CPU"], "num_gpus": need["GPU"], "memory": need["memory"]}
    tries = {"max_task_retries": TRIES - 1, "max_restarts": TRIES * len(board.order)}
    hired = ray.remote(Worker).options(**amounts, **tries)
    with leaving:
        try:
            for _ in range(min(workers, len(board.order))):
                actors.append(hired.remote(given, int(need["CPU"]), str(root())))
                leaving.callback(ray.kill, actors[-1])
            with _held_back() as stop:
                yield from _handed_out(ray, board, actors, stop)
            if stop.is_set():
                what = "stopped; what was finished is kept"
                raise CrystalError(what, where=name, hint=f"{again} goes on")
        except Exception:
            yield from board.out(gaps=True)
            raise
    if board.lost:
        hint = f"see why in Ray's logs, then {again}"
        raise CrystalError(board.left_out(), where=name, hint=hint)


def _handed_out(
    ray: ModuleType, board: Board, actors: Sequence[Any], stop: threading.Event
) -> Iterator[Read]:
    """What workers return, in order. One gets no work until the cluster has room for it."""
    busy = {actor.versions.remote(): (actor, None) for actor in actors}
    while board.order and not stop.is_set():
        for reference in ray.wait(list(busy), timeout=WAIT)[0]:
            actor, batch = busy.pop(reference)
            if batch is None:
                _check_versions(_result(ray, reference))
            elif (found := _result(ray, reference, deadly=True)) is None:
                board.drop(batch)
            else:
                board.done[batch] = found
            if board.waiting:
                batch = board.waiting.popleft()
                busy[actor.read.remote(batch)] = (actor, batch)
        yield from board.out()


def _result(ray: ModuleType, reference: Any, deadly: bool = False) -> Any:
    """What a worker returned, or raised; deadly: None where it died of it TRIES times."""
    errors = ray.exceptions
    deaths = (errors.RayActorError, errors.OutOfMemoryError, errors.NodeDiedError)
    try:
        return ray.get(reference)
    except deaths as error:
        if deadly:
            return None
        what = f"workers die as they start: {reason(error)}"
        raise CrystalError(what, where=address(), hint=INSTALL) from error
    except errors.RayTaskError as error:
        raise error.cause if isinstance(error.cause, CrystalError) else error from None


def _check_versions(theirs: Mapping[str, str]) -> None:
    """What a local build adds (+cpu, +cu126) does not count: the record names the device."""
    for name, version in manifest.versions().items():
        if version.split("+")[0] != theirs[name].split("+")[0]:
            what = f"a worker has {name} {theirs[name]}, and here it is {version}"
            hint = "install requirements/full.txt on every node"
            raise CrystalError(what, where=address(), hint=hint)


@contextlib.contextmanager
def _held_back() -> Iterator[threading.Event]:
    """Set by Ctrl-C, or a scheduler's SIGTERM, in place of what they do; a second one does it."""
    stop, before = threading.Event(), {}

    def caught(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.getsignal(number) or signal.SIG_DFL
            signal.signal(number, caught)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
