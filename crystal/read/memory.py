"""Work cut to the memory there is, and memory held or given back."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch

from ..errors import CrystalError

_FULL = re.compile("can't allocate memory|not enough memory|out of memory", re.I)  # RuntimeErrors


def in_parts(engine, prompts: Sequence, work: Callable) -> list:
    """`work` (part -> list) on at most `engine.batch` prompts at a time, joined.

    A part that does not fit is done again with half the prompts and half the nodes per forward, and
    the engine keeps to these. Raises: CrystalError if a prompt does not fit, node by node.
    """
    size, done = engine.batch, []
    while len(done) < len(prompts):
        try:
            done += work(prompts[len(done) : len(done) + size])
            continue
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not lacking(error):
                raise
        # out of the except block: the traceback holds on to the tensors that were in the way
        size = min(size, len(prompts) - len(done))
        if size == engine.chunk == 1:
            hint = "several GPUs (--device auto), or a narrower dtype in the ladder's description"
            what = "not even one prompt fits into memory"
            raise CrystalError(what, where=engine.source, hint=hint)
        engine.batch = size = max(1, size // 2)
        engine.chunk = max(1, engine.chunk // 2)
        release()
    return done


def lacking(error: BaseException) -> bool:
    """Whether an error says that the memory was not enough."""
    full = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return full or bool(_FULL.search(str(error)))


def release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def hold(on: bool = True) -> None:
    """Keep freed memory for the next tensors, or (off) give it back; where the C library is glibc.

    By default the system gets large blocks back and fills every page with zeros when they are asked
    for again: half of the time of a step of SFT on a real base. Held for longer than steps of one
    kind, the heap falls to pieces and grows.
    """
    map_max, trim_threshold = -4, -1  # names of glibc's malloc.h
    with suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(map_max, 0 if on else 2**16)
        libc.mallopt(trim_threshold, 2**31 - 1 if on else 2**17)
        if not on:
            libc.malloc_trim(0)
