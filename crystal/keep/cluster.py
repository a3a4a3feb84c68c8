"""The batches of a plan, read by workers on Ray: on the cluster that RAY_ADDRESS names, else on this machine.

A worker is an actor that holds one rung and reads what it is handed, a batch at a time. Who reads what is decided as workers
become free; what they return comes out in the plan's order, so that the store cannot tell how many there were. Knows nothing of
the store: workers only read, and whoever asked for the batches keeps them.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

from ..ask.ladders import is_here
from ..errors import CrystalError
from ..files import root
from . import nodes, producers
from .batches import Batch, Plan, Read, Reader
from .board import Board

START = ""  # what a worker does first, and may die of; the name of no rung
WAIT = 0.5  # seconds between looks at whether somebody wants to stop


class Hire(NamedTuple):
    """How many workers, and how many GPUs each of them has to itself."""

    workers: int | None = None  # None: as many as the cluster has room for
    gpus: float | None = None  # None: one, if the cluster has any. A half puts two workers on one


class Refusal(NamedTuple):
    """A CrystalError on its way from a worker, whose own class Ray would wrap."""

    what: str
    where: str
    mend: str | None


class Worker:
    """Lives in a process of its own; whatever it cannot do for a reason that a sentence can tell, it returns as a Refusal."""

    def __init__(self, plan: Plan, threads: int, home: str) -> None:
        os.environ.setdefault("CRYSTAL_ROOT", home)  # a node that keeps the repository elsewhere says so itself
        self.plan, self.threads, self.reader = plan, threads, None

    def start(self) -> dict[str, str]:
        """Versions of what the numbers depend on."""
        return producers.versions()

    def load(self, rung: str, held: frozenset[str]) -> None | Refusal:
        """Take up a rung: exactly the weights that its ladder names, by hash or commit; put down the one before it."""

        def take_up() -> None:
            import torch

            if self.reader:
                self.reader.unload()
            self.reader, wanted = None, self.plan.ladder.rung(rung)
            if not is_here(wanted):
                raise CrystalError(f"a worker lacks the weights of rung {rung!r} of {wanted.ladder}",
                                   where=root() / wanted.source,
                                   mend="keep the repository where all nodes see it (CRYSTAL_ROOT names the place on a node)")
            torch.set_num_threads(self.threads)  # another number would sum in another order
            self.reader = Reader(self.plan, wanted, held)

        return self._told(take_up)

    def read(self, batch: Batch) -> Read | Refusal:
        """Read a batch of the rung that is loaded."""
        return self._told(lambda: self.reader.read(batch))

    @staticmethod
    def _told(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except CrystalError as error:
            return Refusal(error.what, f"{error.where or 'a worker'}, on {socket.gethostname()}", error.mend)
        except ModuleNotFoundError as error:
            return Refusal(f"a worker lacks the package {error.name}", socket.gethostname(),
                           "install requirements/full.txt on every node, and start Ray from that environment")


def read_there(plan: Plan, hire: Hire) -> Iterator[Read]:
    """Every batch, in the plan's order. What `board.DEATHS` workers died of is left out, and named at the end.

    An error, Ctrl-C or SIGTERM stops the work; what is finished comes out before the error goes on.
    Raises: CrystalError if Ray is not installed, its cluster not reached or too small, a worker cannot read (its weights are
    missing or other ones, its packages of another version), batches were left out, or the work was stopped.
    """
    if (hire.workers is not None and hire.workers < 1) or (hire.gpus is not None and hire.gpus < 0):
        raise CrystalError("there must be at least one worker, with no GPU or more", mend="--workers 2 --gpus-per-worker 1")
    ray, threads = nodes.ray_module(), nodes.threads_of_a_worker()
    ours = nodes.connect(ray, threads * (hire.workers or 1))
    try:
        there = nodes.resources(ray)
        gpus = float(any(node.get("GPU") for node in there)) if hire.gpus is None else hire.gpus
        if not gpus and plan.device is None:
            plan = dataclasses.replace(plan, device="cpu")  # a GPU that was not asked for is still seen
        need = nodes.need_of(plan.ladder, plan.rungs, threads, gpus)
        room = nodes.room_for(there, need)
    except BaseException:
        if ours:
            ray.shutdown()
        raise
    return _reads(_Crew(ray, plan, need, Board.of(plan)), hire.workers or room, ours)


def _reads(crew: _Crew, workers: int, ours: bool) -> Iterator[Read]:
    board = crew.board
    try:
        with _held_back() as stop:
            for _ in range(min(workers, len(board.order))):
                crew.hire()
            while board.order and not stop.is_set():
                crew.hand_out()
                crew.take_in()
                yield from board.in_turn()
        if stop.is_set():
            raise CrystalError("stopped; what was finished is kept", where=crew.plan.ladder.name,
                               mend=f"crystal resample {crew.plan.ladder.name} --cluster --missing-only goes on")
    except Exception:
        yield from board.finished()
        raise
    finally:
        crew.dismiss()
        if ours:
            crew.ray.shutdown()
    if board.dropped:
        raise CrystalError(board.left_out(), where=crew.plan.ladder.name, mend="see why in Ray's logs, then "
                           f"crystal resample {crew.plan.ladder.name} --cluster --missing-only")


@contextlib.contextmanager
def _held_back() -> Iterator[threading.Event]:
    """Set by Ctrl-C, or by the SIGTERM of a scheduler, in place of what they do; the second time they do it."""
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


@dataclass
class _Hand:
    """A worker as its employer sees it."""

    actor: Any
    work: Batch | str  # what it does, or did last: START, a rung to load, a batch
    loaded: str | None = None


@dataclass
class _Crew:
    """The workers, and what each of them is at."""

    ray: ModuleType
    plan: Plan
    need: Mapping[str, float]
    board: Board
    busy: dict[Any, _Hand] = field(default_factory=dict)  # by the reference to what it will return
    idle: list[_Hand] = field(default_factory=list)
    held: dict[str, frozenset[str]] = field(default_factory=dict)  # of a rung, from before anything of it was written

    def hire(self) -> None:
        """Ask for one more worker; until there is room for it on the cluster, it gets no work."""
        actor = self.ray.remote(Worker).options(
            num_cpus=self.need["CPU"], num_gpus=self.need["GPU"], memory=self.need["memory"], max_restarts=0,
        ).remote(self.plan, int(self.need["CPU"]), str(root()))
        self.busy[actor.start.remote()] = _Hand(actor, START)

    def hand_out(self) -> None:
        """Give every idle worker what the board has for it."""
        for hand in list(self.idle):
            crews = collections.Counter(other.loaded for other in (*self.busy.values(), *self.idle))
            work = self.board.next_for(hand.loaded, crews)
            if work is None:
                continue
            self.idle.remove(hand)
            hand.work = work
            if isinstance(work, Batch):
                self.busy[hand.actor.read.remote(work)] = hand
                continue
            hand.loaded = work
            if work not in self.held:
                self.held[work] = self.plan.held(self.plan.ladder.rung(work))
            self.busy[hand.actor.load.remote(work, self.held[work])] = hand

    def take_in(self) -> None:
        """Wait a moment for what is finished; a worker that died is replaced, and its work waits again."""
        died = self.ray.exceptions
        ready, _ = self.ray.wait(list(self.busy), timeout=WAIT)
        for reference in ready:
            hand = self.busy.pop(reference)
            try:
                found = self.ray.get(reference)
            except (died.RayActorError, died.WorkerCrashedError, died.OutOfMemoryError, died.NodeDiedError) as error:
                self.ray.kill(hand.actor)
                if self.board.died(hand.work) and hand.work == START:
                    raise CrystalError(f"workers die as they start: {nodes.first_line(error)}", where=nodes.address(),
                                       mend="install requirements/full.txt on every node, and start Ray from there") from error
                self.hire()
                continue
            self.idle.append(hand)
            if isinstance(found, Refusal):
                raise CrystalError(found.what, where=found.where, mend=found.mend)
            if isinstance(found, Read):
                self.board.done[found.batch] = found
            elif hand.work == START:
                _check_versions(found)

    def dismiss(self) -> None:
        """Let every worker go, whatever it is at."""
        for hand in (*self.busy.values(), *self.idle):
            self.ray.kill(hand.actor)


def _check_versions(theirs: Mapping[str, str]) -> None:
    """What a local build adds to a version (+cpu, +cu126) does not count: the device is written into the record."""
    for name, version in producers.versions().items():
        if version.split("+")[0] != theirs[name].split("+")[0]:
            raise CrystalError(f"a worker has {name} {theirs[name]}, and here it is {version}", where=nodes.address(),
                               mend="install requirements/full.txt on every node")
