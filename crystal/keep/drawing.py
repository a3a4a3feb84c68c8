"""Draws answers, from a ladder's stage ends or from a server: every cell once, resumable.

Only the line of the answer is kept: to stop the model there would give the same counts of lines.
A server says little of what it serves. Its name for the model is checked against the ladder where
it is a folder on this machine or a hub id; otherwise the record says "unchecked".
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..ask.cells import Cell, Decoding, Situation
from ..ask.ladders import (
    KINDS,
    STAGES,
    Checkpoint,
    Ladder,
    check_weights,
    load_ladder,
    weights_sha256,
)
from ..ask.prompts import FORMS, PROBE, PROMPTS, Prompt, template_of
from ..ask.tasks import PHASE_TASKS, TASKS, Task, read
from ..errors import CrystalError, known
from ..files import root
from ..read import servers
from ..read.servers import ENDPOINTS, Server, address
from . import drawn, manifest, store
from .drawn import DRAWN, TASKS_DRAWN, TRUTH, lines
from .resample import Plan, Reader, bar, cell_of

TOGETHER = 4  # prompts in one tree: a base's twenty are 100,000 nodes, several GiB
FLUSH_SECONDS = 10.0  # finished cells wait this long, for a shard of several; a kill loses those
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COMMIT = re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])")  # of a snapshot, or behind an @


# -- here


def draw(
    name: str,
    *,
    tasks: Sequence[str] = TASKS_DRAWN,
    checkpoints: Sequence[str] = STAGES,
    decoding: Decoding = DRAWN,
    device: str | None = None,
) -> pd.DataFrame:
    """Draw what the log lacks of stage ends in their native forms x tasks x PROBE; for tasks with
    options their exact answers, too.

    Returns: one row per checkpoint and task: cells, new, texts (distinct, of the new), seconds.
    Raises: CrystalError for an unknown name, or files that are not the ladder's or its cells'.
    """
    ladder = load_ladder(name)
    if ladder.kind != "ladder":
        what = f"{name} is {KINDS[ladder.kind]}, and draws are of a ladder's four stages"
        raise CrystalError(what, hint="make draw LADDER=nano-llama")
    plan = Plan(
        ladder=ladder,
        checkpoints=tuple(map(ladder.checkpoint, checkpoints)),
        tasks=tuple(known(task, TASKS, "task") for task in tasks),
        device=device,
        held=frozenset(drawn.keys(name)),
        made=drawn.makings(name),
    )
    for checkpoint in plan.checkpoints:
        check_weights(checkpoint)
    return pd.DataFrame(list(_walk(plan, decoding)))


def _walk(plan: Plan, decoding: Decoding) -> Iterator[dict]:
    """Each checkpoint is unloaded before the next is loaded. A task's cells are a shard."""
    lots = [PROBE[low : low + TOGETHER] for low in range(0, len(PROBE), TOGETHER)]
    total = len(plan.checkpoints) * len(plan.tasks) * len(PROBE)
    with bar(total, plan.ladder.name) as shown:
        for checkpoint in plan.checkpoints:
            reader = Reader(plan, checkpoint)
            for task in plan.tasks:
                shown.set_postfix_str(f"{checkpoint.name}, {task}", refresh=False)
                start, rows = time.perf_counter(), []
                kinds = (decoding, TRUTH) if TASKS[task].closed else (decoding,)
                for lot, how in itertools.product(lots, kinds):
                    asked = Situation(form=checkpoint.native_form, prompts=lot, decoding=how)
                    rows += reader.rows(asked, task)
                seconds = time.perf_counter() - start
                if rows:
                    made = reader.made | {"dtype": reader.dtype, "seconds": seconds}
                    drawn.append(plan.ladder.name, rows, manifest.provenance(**made))
                shown.update(len(PROBE))
                texts = [len(row.texts) for row in rows if row.texts]
                summary = {"checkpoint": checkpoint.name, "task": task, "cells": len(PROBE)}
                yield summary | {"new": len(texts), "texts": sum(texts), "seconds": seconds}
            reader.machine.unload()


# -- from a server


def draw_served(
    name: str,
    *,
    server: str | None = None,
    model: str | None = None,
    checkpoint: str | None = None,
    tasks: Sequence[str] = PHASE_TASKS,
    prompts: Sequence[Prompt] = PROMPTS,
    n: int = 1000,
    seed: int = 0,
    max_tokens: int = 12,
    form: str | None = None,
    dtype: str | None = None,
    workers: int = 4,
    say: Callable[[str], None] = lambda line: None,
    **settings,
) -> pd.DataFrame:
    """Draw what the ladder's log lacks of one checkpoint, at temperature 1, nothing truncated.

    server: URL, None: $CRYSTAL_SERVER. model: as the server calls it. form: None is the
    checkpoint's own. dtype: what the server computes in, None: the ladder's. workers: requests
    under way at a time. settings: timeout, patience, batch of `Server`. Another seed, or n, draws
    the same anew. Returns: one row per task: cells, new, draws, cut (by max_tokens), none (no
    option), seconds.
    Raises: CrystalError for unknown names, a model that is not the checkpoint, a server's mistakes.
    """
    ladder = load_ladder(name)
    asked = [TASKS[known(task, TASKS, "task")] for task in tasks]
    url = address(server)
    listed = Server(url=url, model=model or "").models()
    if model is None:
        ids = ", ".join(str(entry["id"]) for entry in listed) or "nothing"
        what = f"which model? The server lists {ids}"
        raise CrystalError(what, where=url, hint="--model NAME")
    chosen, checked = identify(ladder, model, checkpoint, listed)
    form = known(form or chosen.native_form, FORMS, "form")
    template = template_of(form)
    there = servers.connect(url, model, template, **settings)
    probed = servers.probe(there, template, workers)
    facts = {"model": model, "checked": checked, "probe": probed}
    facts |= {"settings": there.settings.__name__, "software": there.software}
    say(f"{model} is checkpoint {chosen.name} of {name} ({checked}); {probed}")
    how = {"n": n, "seed": seed, "max_tokens": max_tokens, "endpoint": ENDPOINTS[template]}
    put = Situation(form=form, prompts=tuple(prompts), decoding=Decoding(kind="draws", **how))
    walk = _Walk(chosen, put, dtype or ladder.dtype, there, facts, drawn.keys(name))
    return pd.DataFrame([_task(walk, task, workers) for task in asked])


def identify(
    ladder: Ladder, model: str, checkpoint: str | None, listed: Sequence[dict]
) -> tuple[Checkpoint, str]:
    """The checkpoint that a served model is, and by what that is known, or "unchecked".

    listed: what the server says it serves; vLLM names the folder or hub id as a "root".
    Raises: CrystalError if it is another than `checkpoint`, or if nothing tells which it is.
    """
    roots = [str(one["root"]) for one in listed if one["id"] == model and one.get("root")]
    sign = next(filter(None, (_sign(ladder, name) for name in (*roots, model))), None)
    if sign is None and checkpoint is None:
        what = f"nothing tells which checkpoint of {ladder.name} {model!r} is"
        raise CrystalError(what, hint=f"--checkpoint {ladder.checkpoints[0].name}")
    if sign is None:
        return ladder.checkpoint(checkpoint), "unchecked"
    field, value, how = sign
    found = next((one for one in ladder.checkpoints if getattr(one, field) == value), None)
    if found is None or (checkpoint is not None and ladder.checkpoint(checkpoint) != found):
        is_ = found.name if found else "none of its checkpoints"
        asked = f", not {checkpoint}" if checkpoint else ""
        what = f"by its {how} {model!r} is {is_} of {ladder.name}{asked}"
        hint = "serve the weights of this checkpoint, or name the checkpoint that is served"
        raise CrystalError(what, hint=hint)
    return found, how


def _sign(ladder: Ladder, name: str) -> tuple[str, str, str] | None:
    """What a name or folder tells of its checkpoint: a field, its value, how it is known."""
    for folder in (Path(name), root() / name):
        if (folder / "model.safetensors").is_file():
            return "revision", weights_sha256(folder), "weights' sha256"
    if all(one.local for one in ladder.checkpoints):
        return None
    if snapshot := _COMMIT.search(name):
        return "revision", snapshot[0], "commit"
    return ("source", name, "hub id") if _HUB_ID.fullmatch(name) else None


class _Walk(NamedTuple):
    checkpoint: Checkpoint
    put: Situation
    dtype: str
    server: Server
    facts: dict
    held: set[str]


def _task(walk: _Walk, task: Task, workers: int) -> dict:
    """The cells of one task, several at a time; kept as they are finished, whatever ends it."""
    start = since = time.perf_counter()
    of, put, lacking = walk.checkpoint, walk.put, []
    for prompt in put.prompts:
        ids = tuple(prompt.text(task, put.form).encode())
        cell = cell_of(of, ("", ""), walk.dtype, ids, put.decoding, task)
        if cell.key not in walk.held:
            lacking.append((prompt, cell))
    found: dict[Future, tuple[store.Row, int]] = {}
    shown = bar(len(lacking), f"{of.name}, {task.name}")
    with shown, ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_draw, walk, task, *one) for one in lacking]
        try:
            for future in as_completed(futures):
                future.result()
                shown.update()
                if time.perf_counter() - since > FLUSH_SECONDS:
                    since = _keep(walk, futures, found, since)
        except BaseException:  # Ctrl-C, too
            walk.server.halted.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            _keep(walk, futures, found, since)
    counts: Counter[str] = Counter()
    for row, _ in found.values():
        counts.update(row.texts)
    none = sum(n for text, n in counts.items() if task.closed and read(text, task) is None)
    cut, seconds = sum(cut for _, cut in found.values()), time.perf_counter() - start
    place = {"checkpoint": of.name, "form": put.form, "task": task.name}
    number = {"cells": len(put.prompts), "new": len(found), "draws": counts.total()}
    return place | number | {"cut": cut, "none": none, "seconds": seconds}


def _keep(
    walk: _Walk, futures: Sequence[Future], found: dict[Future, tuple], since: float
) -> float:
    """Write the finished cells that are not in `found`, as one shard; say when that was."""
    done = [one for one in futures if one.done() and not one.cancelled() and not one.exception()]
    fresh = {one: one.result() for one in done if one not in found}
    now = time.perf_counter()
    if fresh:
        rows = sorted((row for row, _ in fresh.values()), key=lambda row: row.prompt)
        made = {"engine": "server", "device": "unknown", "dtype": walk.dtype}
        made |= {"versions": {}, "seconds": now - since}  # ours say nothing of the server's
        cut = {"cut": sum(cut for _, cut in fresh.values())}
        made = manifest.provenance(**made) | {"server": walk.facts | cut}
        drawn.append(walk.checkpoint.ladder, rows, made)
        found.update(fresh)
    return now


def _draw(walk: _Walk, task: Task, prompt: Prompt, cell: Cell) -> tuple[store.Row, int]:
    """The n answers of a cell, all of them or an exception; how many max_tokens ended."""
    texts: Counter[str] = Counter()
    form, wanted, server, cut, request = walk.put.form, cell.decoding, walk.server, 0, 0
    while (left := wanted.n - texts.total()) > 0:
        if server.halted.is_set():
            raise CrystalError("stopped")
        how = {"n": min(left, server.batch), "seed": request_seed(cell.key, request)}
        how |= {"max_tokens": wanted.max_tokens, "temperature": wanted.temperature}
        reply = server.ask(template_of(form), prompt.text(task, form), **how)
        texts.update(reply.texts)
        cut, request = cut + reply.cut, request + 1
    return store.Row(cell, form, prompt.id, lines(texts)), cut


def request_seed(key: str, request: int) -> int:
    """31 bits, from the cell's key, or two prompts would share their randomness."""
    digest = hashlib.blake2b(f"{key} {request}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1
