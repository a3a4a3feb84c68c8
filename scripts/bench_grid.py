"""The whole grid of both nano ladders, as `make resample` reads it: a process a ladder, side by side, one thread each."""

from __future__ import annotations

import json
import time

import torch
from bench_measure import child, counted, said

from crystal.batches import Plan, Reader
from crystal.ladders import load_ladder
from crystal.prompts import ALL_FORMS
from crystal.readout import readout
from crystal.tasks import PHASE_TASKS, TASKS

LADDERS = ("nano-llama", "nano-olmo2")
RUNGS = ("base", "sft", "dpo", "rlvr")


def grid() -> list[dict]:
    """Two ladders, four rungs, every closed task, 100 prompts, two forms: minutes on two cores, tokens against the fewest."""
    children = [child(f"import bench_grid; bench_grid.read({name!r})") for name in LADDERS]
    return [row for process in children for row in said(process)]


def read(ladder: str) -> None:
    """Print a row a rung. seconds: from the weights on the disk to the last law, nothing written; `fewest` is not timed."""
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
            "forwards": len(forwards), "needed": sum(row.tokens for row in found),
            "prompt_tokens": sum(len(row.cell.prompt_ids) for row in found),
            "unresolved_largest": max(row.unresolved for row in found), "parameters": reader.machine.model.num_parameters()})
        since = now
        reader.unload()
    for rung, row in zip(plan.rungs, rows, strict=True):
        print(json.dumps(row | {"fewest": fewest(Reader(plan, rung, frozenset()))}), flush=True)


def fewest(reader: Reader) -> int:
    """Token positions without which nobody could know these laws up to the budget: see `crystal.readout`, margin."""
    tokens = 0
    for place in reader.plan.asked(reader.rung.name):
        for task in reader.plan.tasks:
            cells = [cell for _, cell in reader.cells(place, task)]
            budget = cells[0].decoding.budget
            found = readout(reader.machine, [cell.prompt_ids for cell in cells], TASKS[task], budget=budget, margin=0)
            tokens += sum(law.tokens for law in found)
    reader.unload()
    return tokens
