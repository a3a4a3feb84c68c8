"""The claims on a ladder of the store: every number, interval and verdict computed once.

`measured` is what pages, overview and experiments read. What it computes is kept in
_build/measured under the hash of what it rests on: the ladder's read-outs, the code that measures
and the parameters. `make reproduce` measures what changed before it runs a page.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..ask.ladders import load_ladder
from ..ask.natural import load_prompts
from ..ask.prompts import PROMPTS, Prompt
from ..ask.tasks import PHASE_TASKS, TASKS
from ..files import PACKAGE, root, write_file
from ..measure import chain
from ..measure.chain import Survey
from ..measure.claims import QUANTILE
from ..measure.inference import Estimate, Null
from ..measure.joint import Account
from ..measure.judging import Verdict
from .answering import compared

PHASES = chain.CLAIMS
FOLDER = "_build/measured"


def parts(readouts: pd.DataFrame, task: str, final: str = "rlvr") -> chain.Parts:
    """What each phase compares, where its checkpoints were read: evidence on the prompts that all
    of them answer, or the count of too few. readouts: of one ladder, on the prompts of the cast
    or, where it was read on these, the natural ones.
    """
    found: dict[str, Any] = {}
    prompts = asked(readouts)
    for phase, places in zip(
        PHASES, (("base",), ("base", "sft"), ("base", "sft", final)), strict=True
    ):
        if not set(places) <= set(readouts["rung"]):
            continue
        on = compared(readouts, task, *places, prompts=prompts)
        found[phase] = [on.evidence(place) for place in places] if on.count.measurable else on.count
    return found


def asked(readouts: pd.DataFrame) -> Sequence[Prompt]:
    """The set of prompts that a ladder was read on."""
    there = set(readouts["prompt"])
    return PROMPTS if any(prompt.id in there for prompt in PROMPTS) else load_prompts()


def survey(readouts: pd.DataFrame, *, final: str = "rlvr", **how) -> Survey:
    """Every claim on all tasks of one ladder's read-outs; `how` as in `chain.survey`."""
    tasks = readouts["task"].unique()
    every = {task: parts(readouts, task, final) for task in tasks}
    return chain.survey(every, {task: TASKS[task].options for task in tasks}, **how)


def measured(
    ladder: str,
    *,
    final: str = "rlvr",
    quantile: float = QUANTILE,
    seed: int = 0,
    permutations: int = 999,
) -> Survey:
    """`survey` of a ladder's read-outs in the store, computed where it is not kept already."""
    from ..keep import store

    how = {"final": final, "quantile": float(quantile), "seed": seed, "permutations": permutations}
    rests_on = [ladder, how, store.manifest_digest(ladder)]
    key = hashlib.sha256(json.dumps(rests_on, sort_keys=True).encode()).hexdigest()[:16]
    path = root() / FOLDER / code() / f"{ladder}-{key}.json"
    try:
        return unpacked(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not whole
        chain.check(quantile=quantile, seed=seed, permutations=permutations)
        there = {rung.name for rung in load_ladder(ladder).rungs}
        rungs = [rung for rung in ("base", "sft", final) if rung in there]
        readouts = store.load_readouts(ladder, rungs=rungs, tasks=PHASE_TASKS)
        found = survey(readouts, **how)
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.parent.iterdir():
            if other != path.parent:  # of code that is no more
                shutil.rmtree(other, ignore_errors=True)
        write_file(path, json.dumps(packed(found)).encode())
        return found


def measure(ladder: str, how: dict[str, Any]) -> float:
    """Seconds that `measured` took; 0 where all was kept."""
    began, kept = time.perf_counter(), root() / FOLDER / code()
    before = set(kept.glob("*"))
    measured(ladder, **how)
    fresh = set(kept.glob("*")) - before
    return time.perf_counter() - began if fresh else 0.0


def code() -> str:
    """sha256 of the code that a number rests on."""
    files = [
        *sorted((PACKAGE / "measure").glob("*.py")),
        *(PACKAGE / "present" / f"{name}.py" for name in ("verdicts", "answering")),
    ]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def packed(found: Survey) -> dict[str, Any]:
    """A survey as JSON; of a null's draws only what is said of them."""
    verdicts = {task: [_plain(v) for v in mine] for task, mine in found.verdicts.items()}
    account = dataclasses.asdict(found.account) if found.account else None
    return {"verdicts": verdicts, "account": account}


def _plain(verdict: Verdict) -> dict[str, Any]:
    fields = dataclasses.asdict(verdict)
    if verdict.null:
        fields["null"]["draws"] = []
    return fields


def unpacked(fields: dict[str, Any]) -> Survey:
    """The same of JSON."""
    verdicts = {task: [_verdict(v) for v in mine] for task, mine in fields["verdicts"].items()}
    return Survey(verdicts, Account(**fields["account"]) if fields["account"] else None)


def _verdict(fields: dict[str, Any]) -> Verdict:
    null = fields["null"] and Null(**fields["null"] | {"draws": np.array(fields["null"]["draws"])})
    return Verdict(**fields | {"estimate": Estimate(**fields["estimate"]), "null": null})
