"""The whole grid of both nano ladders, by the reader of `make resample`: a process a ladder, side by side, one thread each."""

from __future__ import annotations

import json
import time

import torch
from bench_measure import child, counted, said

from crystal.ask.ladders import load_ladder
from crystal.ask.prompts import ALL_FORMS
from crystal.ask.tasks import PHASE_TASKS, TASKS
from crystal.keep.batches import Plan, Reader
from crystal.read.recorded import nodes_needed

LADDERS = ("nano-llama", "nano-olmo2")
RUNGS = ("base", "sft", "dpo", "rlvr")


def grid() -> list[dict]:
    """Two ladders, four rungs, fifteen closed tasks, 100 prompts, two forms: minutes on two cores, tokens against the fewest."""
    children = [child(f"import bench_grid; bench_grid.read({name!r})") for name in LADDERS]
    return [row for process in children for row in said(process)]


def read(ladder: str) -> None:
    """Print a row a rung. seconds: from the weights on the disk to the last law, nothing written, without what `fewest` does."""
    torch.set_num_threads(1)
    plan = Plan(ladder=load_ladder(ladder), rungs=tuple(map(load_ladder(ladder).rung, RUNGS)), forms=ALL_FORMS, tasks=PHASE_TASKS)
    began, since, rows = time.perf_counter(), 0.0, []
    for rung in plan.rungs:
        reader = Reader(plan, rung, frozenset())
        with counted(reader.machine.model) as forwards:
            found = [row for batch in plan.batches(rung.name) for row in reader.read(batch).rows]
        now = time.perf_counter() - began
        rows.append({
            "model": ladder, "rung": rung.name, "cells": len(found), "seconds": now - since, "tokens": sum(forwards),
            "forwards": len(forwards), "saved": sum(row.tokens for row in found) - sum(forwards),
            "unresolved_largest": max(row.unresolved for row in found), "parameters": reader.machine.model.num_parameters()})
        since = now
        reader.unload()
    for rung, row in zip(plan.rungs, rows, strict=True):
        print(json.dumps(row | fewest(Reader(plan, rung, frozenset()))), flush=True)


def fewest(reader: Reader) -> dict:
    """What nobody could undercut who reads each task in each form by itself: `fewest` tokens, `prompt_tokens` of them for the
    prompts' distinct beginnings. `shared`: what beginnings that tasks of a form share would save; nobody here does that.

    Only where no prompt is the beginning of another: else its answers' tokens might be the other one's prompt.
    """
    nodes = once = everywhere = 0
    for place in reader.plan.asked(reader.rung.name):
        asked = []
        for task in reader.plan.tasks:
            cells = [cell for _, cell in reader.cells(place, task)]
            prompts, how = [cell.prompt_ids for cell in cells], cells[0].decoding
            nodes += int(nodes_needed(reader.machine, prompts, TASKS[task], budget=how.budget, max_nodes=how.max_nodes,
                                      max_depth=how.max_depth).sum())
            inner = {ids[:n] for ids in prompts for n in range(1, len(ids))}
            assert len(set(prompts)) == len(prompts) and inner.isdisjoint(prompts), task
            once += len(inner) + len(prompts)
            asked += prompts
        everywhere += len({ids[:n] for ids in asked for n in range(1, len(ids) + 1)})
    reader.unload()
    return {"fewest": nodes + once, "prompt_tokens": once, "shared": once - everywhere}
