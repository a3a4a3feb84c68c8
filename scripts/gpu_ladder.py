"""The real ladder, its second seed and its arms, trained and read beside each other on one GPU.

    python scripts/gpu_ladder.py FOLDER [--seconds 540] [--readers 8]
    python scripts/gpu_ladder.py FOLDER --take     what came of it into data/, here or elsewhere

Trains what `crystal ladder` trains, a process a lineage, and reads whatever is saved at once.
FOLDER holds an archive a ladder, written anew after every read-out, for the time may be over.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from crystal.files import root
from crystal.keep import manifest, resample, store
from crystal.lab import organism, recipes

PARENT, SECOND, ARMS = "gemma3-270m", "gemma3-270m-2", "real-arms"
HOME, WORK, FORMS = root(), Path("/tmp/crystal-gpu"), ("chat", "completion")
Job = tuple[str, ...]  # a checkpoint in one form: ladder, rung, form, grid, dtype


def wanted() -> list[Job]:
    """Most wanted first: ends of stages by every prompt, all else by one wording a context."""
    ends, steps = ("sft", "dpo", "rlvr"), [f"sft-{2**k}" for k in range(10)]
    plan = [(PARENT, ("base", *ends), "natural"), (PARENT, steps, "natural-once")]
    arms = [f"{PARENT}/{run}/sft" for run in ("first", "salient", "uniform", "own", "style")]
    plan += [(ARMS, arms, "natural-once")]
    plan += [(SECOND, ends, "natural"), (SECOND, steps, "natural-once")]
    rows = [(of, rung, grid) for of, rungs, grid in plan for rung in rungs]
    jobs = [(of, rung, form, grid, "float32") for form in FORMS for of, rung, grid in rows]
    return [*jobs, (PARENT, "sft", "chat", "natural-once", "bfloat16")]


def train(lineage: str) -> None:
    """One lineage from the base: a ladder's stages, described at their end, or an arm's SFT."""
    from crystal.lab import growing, organism, training

    if lineage in (PARENT, SECOND):
        training.train_ladder(recipes.load_recipe(lineage), HOME / "runs" / lineage)
        organism.ship(lineage, HOME / "runs" / lineage)
    else:
        experiment = growing.load_experiment(ARMS)
        run = next(run for run in experiment.runs if run.name == lineage)
        growing.grow(experiment, run, PARENT, read=lambda *_, **__: None)


def read(job: Job) -> None:
    """Read one job from a root of its own, for two writers must not share a log."""
    ladder, rung, form, grid, dtype = job
    os.environ["CRYSTAL_ROOT"] = str(HOME)  # or it is the last job's
    here = WORK / "--".join(job).replace("/", "-")
    shutil.rmtree(here, ignore_errors=True)
    (here / "data/ladders").mkdir(parents=True)
    for there in [HOME / "runs", *(HOME / "data").iterdir()]:
        if there.name not in ("ladders", "samples"):
            (here / there.relative_to(HOME)).symlink_to(there)
    *above, last = rung.split("/")
    row = organism.described(PARENT)[0]
    row |= {"template": recipes.load_recipe(PARENT).tokenizer["template"]}
    if last != "base":
        row = {"name": rung, "stage": last.partition("-")[0], "step": 1}
        row |= organism.pinned(HOME / "runs" / ladder / rung)
        row |= dict(zip(("parent", "run"), above, strict=False))
    about = {"name": ladder, "title": ladder, "kind": "branches", "dtype": dtype}
    os.environ["CRYSTAL_ROOT"] = str(here)
    path = here / "data/ladders" / f"{ladder}.yaml"
    organism.describe(path, about, [row | {"grid": grid}])
    resample.resample(ladder, forms=(form,))


def collect(folder: Path) -> None:
    """What came of it so far, an archive a ladder: data/ladders, data/training, logs, read-outs."""
    for name in (PARENT, SECOND, ARMS):
        kept = [*(HOME / "data").glob(f"[lt]*/{name}.*"), *HOME.glob(f"runs/{name}/**/logs/*")]
        with tarfile.open(folder / f"{name}.part", "w") as tar:
            for path in kept:
                tar.add(path, path.relative_to(HOME))
            for there in sorted(WORK.glob(f"{name}--*/data/samples")):
                tar.add(there, Path("read") / there.relative_to(WORK))
        os.replace(folder / f"{name}.part", folder / f"{name}.tar")


def conduct(folder: Path, seconds: float, readers: int) -> None:
    """Train every lineage and read what it saves, until all is done or the time is up."""
    from crystal.lab import training

    end, spawn, runs = time.time() + seconds, multiprocessing.get_context("spawn"), HOME / "runs"
    shutil.rmtree(WORK, ignore_errors=True)
    training.train_ladder(recipes.load_recipe(PARENT), runs / PARENT, ["base"])  # once for all
    for part in ("base", "logs"):
        shutil.copytree(runs / PARENT / part, runs / SECOND / part, dirs_exist_ok=True)
    arms = [run.name for run in recipes.load_experiment(ARMS).runs]
    lanes = [spawn.Process(target=train, args=(name,)) for name in (PARENT, SECOND, *arms)]
    for lane in lanes:
        lane.start()
    todo, busy, pool = wanted(), {}, ProcessPoolExecutor(readers, mp_context=spawn)
    while time.time() < end:
        alive = any(lane.is_alive() for lane in lanes)
        saved = [job for job in todo if Path(runs, *job[:2], "model.safetensors").is_file()]
        for job in saved[: readers - len(busy)]:
            todo.remove(job)
            busy[pool.submit(read, job)] = job
        if not (alive or busy):
            break
        time.sleep(0.3)
        for future in filter(lambda future: future.done(), list(busy)):
            print(*busy.pop(future), future.exception() or "read", flush=True)
            collect(folder)
    for process in [*lanes, *pool._processes.values()]:
        process.kill()


def take(folder: Path) -> None:
    """Archives into data/: descriptions, training records, and every new read-out."""
    for archive in sorted(folder.glob("*.tar")):
        name = archive.stem
        with tempfile.TemporaryDirectory() as aside, tarfile.open(archive) as tar:
            tar.extractall(aside, filter="data")
            for path in Path(aside, "data").glob(f"*/{name}.*"):
                shutil.copy(path, HOME / "data" / path.parent.name)
            for home in sorted(Path(aside, "read").glob("*")):
                os.environ["CRYSTAL_ROOT"] = str(home)
                found = [(r, manifest.verified(name, r)) for r in manifest.records(name)]
                os.environ["CRYSTAL_ROOT"] = str(HOME)
                for facts, blob in found:
                    if store.keys(name).isdisjoint(store.keys_of(store.unpacked(blob))):
                        facts = {key: facts[key] for key in facts.keys() - {"sha256", "bytes"}}
                        with manifest.alone(name):
                            manifest.write(name, blob, facts)


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=540.0)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--take", action="store_true")
    told = vars(parser.parse_args())
    take(told["folder"]) if told.pop("take") else conduct(**told)
