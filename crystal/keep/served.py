"""Draws from a served model into a ladder's log of draws: every cell once, resumable after a kill of either side.

A server says little of what it serves. Its name for the model is checked against the ladder where it is a folder on this
machine or a hub id; otherwise the rung is what whoever runs the server says, and the record of the draws says that.
The law is the server's, its tokenizer and template included: special tokens that it leaves out of its texts are no end here.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..ask.cells import Cell, Decoding, task_sha256
from ..ask.ladders import Ladder, Rung, load_ladder, weights_sha256
from ..ask.prompts import FORMS, PROMPTS, Prompt, template_of
from ..ask.tasks import PHASE_TASKS, TASKS, Task, read
from ..errors import CrystalError, known
from ..files import root
from ..read import dialects
from ..read.servers import ENDPOINTS, Server, address
from . import drawn, producers, progress
from .redraw import lines

FLUSH_SECONDS = 10.0  # finished cells wait this long, for a shard of several; a kill loses no more, and what was under way
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COMMIT = re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])")  # in a snapshot's folder, or behind an @


class _Found(NamedTuple):
    texts: dict[str, int]  # first lines
    cut: int  # answers that max_tokens ended


def draw(
    name: str, *, server: str | None = None, model: str | None = None, rung: str | None = None,
    tasks: Sequence[str] = PHASE_TASKS, prompts: Sequence[Prompt] = PROMPTS, n: int = 1000, seed: int = 0, max_tokens: int = 12,
    form: str | None = None, dtype: str | None = None, workers: int = 4, say: Callable[[str], None] = lambda line: None,
    **settings,
) -> pd.DataFrame:
    """Draw from a server what the ladder's log of draws lacks of one rung. Temperature 1, nothing truncated.

    server: URL, None: $CRYSTAL_SERVER. model: as the server calls it. form: None is the rung's own. dtype: what the server
    computes in, None: the ladder's. workers: requests under way at a time. settings: timeout, patience, batch of `Server`.
    With another seed, or another n, come new draws of the same situations.
    Returns: one row per task: cells, new (drawn now), draws, cut (ended by max_tokens), none (no option), seconds.
    Raises: CrystalError for unknown names, a model that is not the rung, and whatever the server gets wrong.
    """
    ladder = load_ladder(name)
    asked = [TASKS[known(task, TASKS, "task")] for task in tasks]
    for what, value in (("n", n), ("max_tokens", max_tokens), ("workers", workers)):
        if value < 1:
            raise CrystalError(f"{what} must be 1 or more, not {value}")
    url = address(server)
    if model is None:
        listed = ", ".join(str(entry["id"]) for entry in Server(url=url, model="").models()) or "nothing"
        raise CrystalError(f"which model? The server lists {listed}", where=url, mend="--model NAME")
    chosen, checked = identify(ladder, model, rung, Server(url=url, model=model).models())
    form = known(form or chosen.native_form, FORMS, "form")
    there = dialects.connect(url, model, template_of(form), **settings)
    decoding = Decoding(kind="draws", n=n, seed=seed, max_tokens=max_tokens, endpoint=ENDPOINTS[template_of(form)])
    probed = dialects.probe(there, template_of(form), workers)
    facts = {"model": model, "checked": checked, "probe": probed, "settings": there.settings.__name__, "software": there.software}
    say(f"{model} is rung {chosen.name} of {name} ({checked}); {probed}")
    walk = _Walk(ladder, chosen, form, dtype or ladder.dtype, decoding, there, facts, drawn.keys(name))
    return pd.DataFrame([_task(walk, task, prompts, workers) for task in asked])


def identify(ladder: Ladder, model: str, rung: str | None, listed: Sequence[dict]) -> tuple[Rung, str]:
    """The rung that a served model is, and by what that is known: weights' sha256, commit, hub id, or "unchecked".

    listed: what the server says it serves. A vLLM server names a "root", the folder or hub id, beside an alias.
    Raises: CrystalError if it is another one than `rung`, or if nothing tells which one it is.
    """
    roots = [str(entry["root"]) for entry in listed if entry["id"] == model and entry.get("root")]
    told = [found for found in (_told(ladder, name) for name in (*roots, model)) if found is not None]
    if not told:
        if rung is None:
            raise CrystalError(f"nothing tells which rung of {ladder.name} {model!r} is", mend=f"--rung {ladder.rungs[0].name}")
        return ladder.rung(rung), "unchecked"
    found, how = told[0]
    if found is None or (rung is not None and ladder.rung(rung) != found):
        is_, wanted = f"{found.name}" if found else "none of its rungs", f", not {rung}" if rung else ""
        raise CrystalError(f"by its {how} {model!r} is {is_} of {ladder.name}{wanted}",
                           mend="serve the rung's own checkpoint, or name the rung that is served")
    return found, how


def _told(ladder: Ladder, name: str) -> tuple[Rung | None, str] | None:
    """The rung of that name or folder, and by what; None for the rung: none of the ladder's; None: the name tells nothing."""
    folder = next((f for f in (Path(name), root() / name) if (f / "model.safetensors").is_file()), None)
    if folder is not None:
        sha256 = weights_sha256(folder)
        return next((one for one in ladder.rungs if one.revision == sha256), None), "weights' sha256"
    distant = [one for one in ladder.rungs if not one.local]
    if distant and (snapshot := _COMMIT.search(name)):
        return next((one for one in distant if one.revision == snapshot[0]), None), "commit"
    if distant and _HUB_ID.fullmatch(name):
        return next((one for one in distant if one.source == name), None), "hub id"
    return None


class _Walk(NamedTuple):
    ladder: Ladder
    rung: Rung
    form: str
    dtype: str
    decoding: Decoding
    server: Server
    facts: dict
    held: set[str]

    def cell(self, task: Task, prompt: Prompt) -> Cell:
        return Cell(
            model=self.rung.source, revision=self.rung.revision, config_sha256="", tokenizer_revision="", dtype=self.dtype,
            prompt_ids=tuple(prompt.text(task, self.form).encode()), decoding=self.decoding, task=task.name,
            task_sha256=task_sha256(task))


def _task(walk: _Walk, task: Task, prompts: Sequence[Prompt], workers: int) -> dict:
    """The cells of one task, several at a time; kept as they are finished, whatever ends it."""
    start = time.perf_counter()
    cells = {prompt: walk.cell(task, prompt) for prompt in prompts}
    lacking = {prompt: cell for prompt, cell in cells.items() if cell.key not in walk.held}
    found: dict[Prompt, _Found] = {}
    bar = progress.bar(len(lacking), f"{walk.rung.name}, {task.name}")
    with bar, ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(_draw, walk.server, cell, walk.form, prompt.text(task, walk.form)): prompt
                   for prompt, cell in lacking.items()}
        try:
            _keep(walk, task, futures, found, bar)
        except BaseException:  # Ctrl-C, too
            walk.server.halted.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    draws = sum(sum(one.texts.values()) for one in found.values())
    none = sum(count for one in found.values() for text, count in one.texts.items() if task.closed and read(text, task) is None)
    return {"rung": walk.rung.name, "form": walk.form, "task": task.name, "cells": len(cells), "new": len(found), "draws": draws,
            "cut": sum(one.cut for one in found.values()), "none": none, "seconds": time.perf_counter() - start}


def _keep(walk: _Walk, task: Task, futures: dict[Future, Prompt], found: dict[Prompt, _Found], bar) -> None:
    """Write finished cells, in shards; `found` is what has been written."""
    fresh: dict[Prompt, _Found] = {}
    since = time.perf_counter()

    def flush() -> None:
        nonlocal since
        if fresh:
            rows = [drawn.Row(walk.cell(task, prompt), walk.form, prompt.id, one.texts)
                    for prompt, one in sorted(fresh.items(), key=lambda item: item[0].id)]
            made = producers.producer(engine="server", device="unknown", dtype=walk.dtype, seconds=time.perf_counter() - since)
            made |= {"versions": {}, "server": walk.facts | {"cut": sum(one.cut for one in fresh.values())}}  # ours say nothing
            drawn.append(walk.ladder.name, rows, made)
            found.update(fresh)
            fresh.clear()
        since = time.perf_counter()

    try:
        for future in as_completed(futures):
            fresh[futures[future]] = future.result()
            bar.update()
            if time.perf_counter() - since > FLUSH_SECONDS:
                flush()
    finally:
        done = [future for future in futures if future.done() and not future.cancelled() and future.exception() is None]
        fresh |= {futures[future]: future.result() for future in done if futures[future] not in found}
        flush()


def _draw(server: Server, cell: Cell, form: str, text: str) -> _Found:
    """The n answers of a cell; all of them or an exception."""
    texts: Counter[str] = Counter()
    wanted, cut, request = cell.decoding, 0, 0
    while (left := wanted.n - texts.total()) > 0:
        if server.halted.is_set():
            raise CrystalError("stopped")
        reply = server.ask(template_of(form), text, n=min(left, server.batch), max_tokens=wanted.max_tokens,
                           seed=request_seed(cell.key, request), temperature=wanted.temperature)
        texts.update(reply.texts)
        cut, request = cut + reply.cut, request + 1
    return _Found(lines(texts), cut)


def request_seed(key: str, request: int) -> int:
    """Of the request number `request` of a cell: 31 bits, from the cell's key, or two prompts would share their randomness."""
    return int.from_bytes(hashlib.blake2b(f"{key} {request}".encode(), digest_size=4).digest()) >> 1
