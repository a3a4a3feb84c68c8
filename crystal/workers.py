"""Work done side by side, by processes that die alone and never outlive this one.

A pool of the standard library breaks as a whole when one of its processes is killed, and leaves the
others behind when its owner is. Here each process has pipes of its own.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from threading import Thread
from typing import Any, NamedTuple

SPAWN = get_context("spawn")  # a fork would copy threads, locks and open files


class Done(NamedTuple):
    task: tuple  # arguments
    result: Any  # None if it failed
    error: BaseException | None  # `Died` if its process was killed


class Died(Exception):
    """The process of a task ended without an answer."""


def cores() -> int:
    """Cores that this process may run on, where the system says so (macOS does not); else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def side_by_side(
    function: Callable, tasks: Iterable[tuple], jobs: int, context: BaseContext = SPAWN
) -> Iterator[Done]:
    """`function(*task)` of every task, at most `jobs` at a time, in the order in which they end.

    function: importable by name. Leaving the loop early ends all processes and what they started.
    """
    waiting, busy, idle = deque(tasks), {}, []
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                worker = idle.pop() if idle else _Worker(function, context)
                worker.take(waiting.popleft())
                busy[worker.pipe] = worker
            for pipe in wait(list(busy)):
                worker = busy.pop(pipe)
                done = worker.answer()
                if isinstance(done.error, Died):
                    worker.stop()
                else:
                    idle.append(worker)
                yield done
    finally:
        for worker in (*idle, *busy.values()):
            worker.life.close()
        for worker in (*idle, *busy.values()):
            worker.stop()


def alone(function: Callable, *task: Any, context: BaseContext = SPAWN) -> Any:
    """`function(*task)` in a process of its own. Raises: what it raises, or `Died`."""
    (done,) = side_by_side(function, [task], 1, context)
    if done.error:
        raise done.error
    return done.result


@contextlib.contextmanager
def ahead(function: Callable, *first: Any) -> Iterator[Callable]:
    """`function` in a process of its own, which does `function(*first)` while others work.

    What is given takes the arguments of the next call. Raises: what it raises, or `Died`.
    """
    worker = _Worker(function, SPAWN)
    worker.take(first)

    def call(*task: Any) -> Any:
        if not (done := worker.answer()).error:
            worker.take(task)
            done = worker.answer()
        if done.error:
            raise done.error
        return done.result

    try:
        yield call
    finally:
        worker.stop()


def alive(process: str) -> bool:
    import psutil

    try:
        return process.isdecimal() and psutil.Process(int(process)).status() != "zombie"
    except (psutil.Error, OverflowError):
        return False


class _Worker:
    """One process, kept for the next task."""

    def __init__(self, function: Callable, context: BaseContext) -> None:
        self.pipe, theirs = context.Pipe()
        watched, self.life = context.Pipe(duplex=False)
        ours = (self.pipe, self.life) if context.get_start_method() == "fork" else ()
        given = (function, theirs, watched, ours)
        self.process = context.Process(target=_serve, args=given, daemon=True)
        self.process.start()
        theirs.close()  # else the end of the process would not end the pipe
        watched.close()

    def take(self, task: tuple) -> None:
        self.task = task
        with contextlib.suppress(OSError):  # it died while it waited; `answer` says so
            self.pipe.send(task)

    def answer(self) -> Done:
        try:
            return Done(self.task, *self.pipe.recv())
        except (EOFError, OSError):
            self.process.join()
            died = Died(f"its process ended with status {self.process.exitcode}")
            return Done(self.task, None, died)

    def stop(self) -> None:
        self.life.close()
        self.process.join(timeout=10)
        self.process.kill()
        self.pipe.close()


def _serve(function: Callable, pipe: Connection, life: Connection, ours: tuple) -> None:
    """Answer tasks until nobody asks. ours: the owner's ends, which a fork has."""
    for end in ours:
        end.close()  # else the end of the owner would not end the pipes
    os.setsid()  # Ctrl-C is the owner's to hear
    current_process().daemon = False  # else it may have no children
    Thread(target=_leave_with, args=(life,), daemon=True).start()
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = function(*task), None
        except BaseException as error:
            answer = None, error
        try:
            pipe.send(answer)
        except OSError:
            return
        except Exception as error:  # an answer that cannot be pickled
            what = f"{function.__name__} gave what cannot be sent: {error}"
            pipe.send((None, RuntimeError(what)))


def _leave_with(life: Connection) -> None:
    """Once the owner closes its end, or is gone: kill what this process started, and itself."""
    wait([life])
    kill_children()
    os._exit(1)


def kill_children() -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
