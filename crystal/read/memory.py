"""Work that is cut smaller when the memory does not hold it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from ..errors import CrystalError

_FULL = re.compile("can't allocate memory|not enough memory|out of memory", re.I)  # the CPU's allocators raise a RuntimeError


class Sized(Protocol):
    """What is made smaller: an engine."""

    source: str
    batch: int  # prompts at a time
    chunk: int  # nodes per forward


def in_parts(engine: Sized, prompts: Sequence, work: Callable[[Sequence], list], batch: int | None = None) -> list:
    """`work` on at most `batch` (default: the engine's) prompts at a time, its results joined.

    A part that does not fit is done again with half the prompts and half the nodes per forward, and the engine keeps to
    these from then on. `work` must give the same whatever its part.
    Raises: CrystalError if a single prompt does not fit, node by node.
    """
    size, done = batch or engine.batch, []
    while len(done) < len(prompts):
        try:
            done += work(prompts[len(done) : len(done) + size])
            continue
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not lacking(error):
                raise
        # out of the except block, for the traceback holds on to the tensors that were in the way
        size = _halve(engine, min(size, len(prompts) - len(done)))
    return done


def _halve(engine: Sized, size: int) -> int:
    if size == engine.chunk == 1:
        raise CrystalError("not even one prompt fits into memory", where=engine.source,
                           mend="several GPUs (--device auto), or a narrower dtype in the ladder's description")
    engine.batch, engine.chunk = max(1, size // 2), max(1, engine.chunk // 2)
    release()
    return engine.batch


def lacking(error: BaseException) -> bool:
    """Whether an error says that the memory was not enough."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or bool(_FULL.search(str(error)))


def release() -> None:
    """Give back what nothing refers to."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def hold() -> None:
    """Keep freed memory for the next tensors, where the C library is glibc.

    By default glibc gives large blocks back to the system, which fills every page with zeros when
    they are asked for again. A step of SFT on a real base spends half of its time on that.
    """
    map_max, trim_threshold = -4, -1  # names of glibc's malloc.h
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(map_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
