"""The runs of data/experiments/real-arms.yaml, trained and read beside each other on one GPU.

    python scripts/gpu_ladder.py FOLDER [--seconds 540] [--readers 8]
    python scripts/gpu_ladder.py FOLDER --take     what came of it into data/, here or elsewhere

Trains what `crystal ladder real-arms` trains, a process a run, and reads whatever is saved at once.
FOLDER holds the archive, written anew after every read-out, for the time may be over.
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
from crystal.lab import growing, recipes, training

PARENT, ARMS = "gemma3-270m", "real-arms"
HOME, WORK, FORMS = root(), Path("/tmp/crystal-gpu"), ("chat", "completion")
Job = tuple[str, str, str]  # a checkpoint of ARMS, form, dtype


def wanted() -> list[Job]:
    """Most wanted first: ends of stages, then the steps of plain SFT, chat before raw text."""
    runs = recipes.load_experiment(ARMS).runs
    ends = [f"{PARENT}/{run.name}/{stage}" for run in runs for stage in run.stages]
    plain = [run.name for run in runs if run.name.startswith("plain")]
    steps = [f"{PARENT}/{run}/sft-{2**k}" for run in plain for k in range(10)]
    jobs = [(checkpoint, form, "float32") for form in FORMS for checkpoint in (*ends, *steps)]
    return [*jobs, (f"{PARENT}/plain/sft", "chat", "bfloat16")]


def train(name: str) -> None:
    """One run of the experiment, described and recorded at its end."""
    experiment = growing.load_experiment(ARMS)
    run = next(run for run in experiment.runs if run.name == name)
    growing.grow(experiment, run, PARENT, read=lambda *_, **__: None)


def read(job: Job) -> None:
    """Read one job from a root of its own, for two writers must not share a log."""
    checkpoint, form, dtype = job
    os.environ["CRYSTAL_ROOT"] = str(HOME)  # or it is the last job's
    here = WORK / "--".join(job).replace("/", "-")
    shutil.rmtree(here, ignore_errors=True)
    (here / "data/ladders").mkdir(parents=True)
    for there in [HOME / "runs", *(HOME / "data").iterdir()]:
        if there.name not in ("ladders", "samples"):
            (here / there.relative_to(HOME)).symlink_to(there)
    parent, run, last = checkpoint.split("/")
    row = {"name": checkpoint, "stage": last.partition("-")[0], "step": 1, "parent": parent}
    row |= (
        {"run": run} | growing.pinned(HOME / "runs" / ARMS / checkpoint) | {"grid": "natural-once"}
    )
    about = {"name": ARMS, "title": ARMS, "kind": "branches", "dtype": dtype}
    os.environ["CRYSTAL_ROOT"] = str(here)
    growing.describe(here / "data/ladders" / f"{ARMS}.yaml", about, [row])
    resample.resample(ARMS, forms=(form,))


def collect(folder: Path) -> None:
    """What came of it so far, an archive: data/ladders, data/training, logs, read-outs."""
    kept = [*(HOME / "data").glob(f"[lt]*/{ARMS}.*"), *HOME.glob(f"runs/{ARMS}/**/logs/*")]
    with tarfile.open(folder / f"{ARMS}.part", "w") as tar:
        for path in kept:
            tar.add(path, path.relative_to(HOME))
        for there in sorted(WORK.glob("*/data/samples")):
            tar.add(there, Path("read") / there.relative_to(WORK))
    os.replace(folder / f"{ARMS}.part", folder / f"{ARMS}.tar")


def conduct(folder: Path, seconds: float, readers: int) -> None:
    """Train every run and read what it saves, until all is done or the time is up."""
    end, spawn, runs = time.time() + seconds, multiprocessing.get_context("spawn"), HOME / "runs"
    shutil.rmtree(WORK, ignore_errors=True)
    training.train_ladder(recipes.load_recipe(PARENT), runs / PARENT, ["base"])  # once for all
    names = [run.name for run in recipes.load_experiment(ARMS).runs]
    lanes = [spawn.Process(target=train, args=(name,)) for name in names]
    for lane in lanes:
        lane.start()
    todo, busy, pool = wanted(), {}, ProcessPoolExecutor(readers, mp_context=spawn)
    while time.time() < end:
        alive = any(lane.is_alive() for lane in lanes)
        saved = [job for job in todo if Path(runs, ARMS, job[0], "model.safetensors").is_file()]
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
