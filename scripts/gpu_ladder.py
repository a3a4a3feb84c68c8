"""The real ladder, its second seed and its arms, trained and read beside each other on one GPU.

    python scripts/gpu_ladder.py FOLDER [--seconds 540] [--readers 8]
    python scripts/gpu_ladder.py FOLDER --take     what came of it into data/, here or elsewhere

Trains what `make ladder LADDER=gemma3-270m` (and -2) and `crystal ladder real-arms` train, by the
same functions and recipes, every lineage in a process of its own. Whatever is saved is read at
once, in the order of `wanted`, every checkpoint and form in a folder of its own, for two writers
must not share a log. Descriptions, training logs and read-outs lie in FOLDER, an archive a ladder,
written anew after every read-out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from pathlib import Path

import pyarrow as pa

from crystal.files import root

LADDERS, ARMS = ("gemma3-270m", "gemma3-270m-2"), "real-arms"
PARENT = LADDERS[0]
STEPS = tuple(f"sft-{2**k}" for k in range(10))
ENDS = ("sft", "dpo", "rlvr")
CHAT, COMPLETION = "chat", "completion"
WORK = Path(os.environ.get("CRYSTAL_WORK", "/tmp/crystal-gpu"))


@dataclasses.dataclass(frozen=True)
class Job:
    """A checkpoint to be read in one form."""

    ladder: str
    rung: str
    form: str
    grid: str
    dtype: str = "float32"

    @property
    def name(self) -> str:
        return "--".join((self.ladder, self.rung.replace("/", "-"), self.form, self.dtype))

    @property
    def weights(self) -> Path | None:
        """The folder that training leaves; None: the base."""
        if self.rung == "base":
            return None
        if self.ladder != ARMS:
            return root() / "runs" / self.ladder / self.rung
        return root() / "runs" / ARMS / self.rung


def wanted() -> list[Job]:
    """What is to be read, most wanted first: ends of stages by every prompt, all else by one
    wording a context.
    """
    arms = [f"{PARENT}/{run}/sft" for run in ("first", "salient", "uniform", "own", "style")]
    first, second = LADDERS
    full = [
        Job(first, rung, form, "natural")
        for rung in ("base", *ENDS)
        for form in (CHAT, COMPLETION)
        if (rung, form) != ("base", COMPLETION)
    ]
    once = [Job(first, rung, CHAT, "natural-once") for rung in STEPS]
    arms_chat = [Job(ARMS, rung, CHAT, "natural-once") for rung in arms]
    again = [Job(second, rung, form, "natural") for rung in ENDS for form in (CHAT, COMPLETION)]
    raw = [Job(first, rung, COMPLETION, "natural-once") for rung in STEPS]
    arms_raw = [Job(ARMS, rung, COMPLETION, "natural-once") for rung in arms]
    steps = [
        Job(second, rung, form, "natural-once") for form in (CHAT, COMPLETION) for rung in STEPS
    ]
    checks = [
        Job(first, "base", COMPLETION, "natural"),
        Job(first, "sft", CHAT, "natural-once", "bfloat16"),
    ]
    return full + once + arms_chat + again[:2] + raw + again[2:] + checks + arms_raw + steps


def train(lineage: str) -> None:
    """One lineage from the base: a ladder's three stages, described at its end, or an arm's SFT."""
    from crystal.lab import growing, organism, training
    from crystal.lab.recipes import load_recipe

    if lineage in LADDERS:
        out = root() / "runs" / lineage
        training.train_ladder(load_recipe(lineage), out)
        organism.ship(lineage, out)
        return
    experiment = growing.load_experiment(ARMS)
    run = next(run for run in experiment.runs if run.name == lineage)
    growing.grow(experiment, run, PARENT, read=lambda *_, **__: None)


def read(job: Job) -> None:
    """Read one job into WORK/<name>/data/samples, from a repository that holds nothing else."""
    from crystal.keep import resample
    from crystal.lab import describing

    home, here = root(), WORK / job.name
    data = here / "data"
    shutil.rmtree(here, ignore_errors=True)
    (data / "ladders").mkdir(parents=True)
    for there in (home / "data").iterdir():
        if there.name not in ("ladders", "samples"):
            (data / there.name).symlink_to(there)
    (here / "runs").symlink_to(home / "runs")
    if job.weights is None:
        row = describing.rows(PARENT)[0] | {"template": template()}
    else:
        parts = job.rung.split("/")
        row = {
            "name": job.rung,
            "stage": parts[-1].partition("-")[0],
            "step": 1,
            **describing.pinned(job.weights),
        }
        row |= {"parent": parts[0], "run": parts[1]} if len(parts) > 1 else {}
    os.environ["CRYSTAL_ROOT"] = str(here)
    try:
        describing.write(
            data / "ladders" / f"{job.ladder}.yaml",
            {"name": job.ladder, "title": job.ladder, "kind": "branches", "dtype": job.dtype},
            [row | {"grid": job.grid}],
        )
        resample.resample(job.ladder, forms=(job.form,))
    finally:
        os.environ["CRYSTAL_ROOT"] = str(home)


def template() -> str:
    from crystal.lab.recipes import load_recipe

    return load_recipe(PARENT).tokenizer["template"]


def _lane(lineage: str) -> None:
    """A lineage's process: everything it says goes to its log."""
    log = WORK / "logs" / f"train-{lineage}.log"
    with open(log, "a", buffering=1) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        began = time.time()
        try:
            train(lineage)
            print(f"DONE in {time.time() - began:.1f}s", flush=True)
        except BaseException:
            traceback.print_exc()
            raise


def _reader(tasks, results) -> None:
    """A reader's life: one job after the other, so that packages are imported once."""
    os.setsid()
    while (job := tasks.get()) is not None:
        log, began = WORK / "logs" / f"{job.name}.log", time.time()
        with open(log, "a", buffering=1) as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            try:
                read(job)
                results.put((job.name, round(time.time() - began, 1), ""))
            except Exception as error:
                traceback.print_exc()
                results.put(
                    (
                        job.name,
                        round(time.time() - began, 1),
                        f"{type(error).__name__}: {error}"[:300],
                    )
                )


def collect(folder: Path, notes: dict) -> None:
    """What came of it so far, an archive a ladder: description, record, logs, read-outs."""
    home = root()
    (WORK / "notes.json").write_text(json.dumps(notes, indent=1))
    for name in (*LADDERS, ARMS):
        aside = folder / f"{name}.part"
        with tarfile.open(aside, "w") as tar:
            beside = [
                home / "data/ladders" / f"{name}.yaml",
                home / "data/training" / f"{name}.json",
            ]
            for path in (*beside, *sorted((home / "runs" / name).rglob("logs/*"))):
                if path.is_file():
                    tar.add(path, path.relative_to(home))
            for there in sorted(WORK.glob(f"{name}--*/data/samples")):
                tar.add(there, Path("read") / there.relative_to(WORK))
            if name == PARENT:
                for path in [WORK / "notes.json", *sorted((WORK / "logs").glob("*"))]:
                    tar.add(path, Path("notes") / path.name)
        os.replace(aside, folder / f"{name}.tar")


def busyness() -> str:
    """How busy the GPU is, and how full."""
    asked = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return "no GPU"


def conduct(folder: Path, seconds: float, readers: int) -> None:
    import torch

    began = time.time()
    shutil.rmtree(WORK, ignore_errors=True)
    (WORK / "logs").mkdir(parents=True)

    def said(text: str) -> None:
        print(f"[{time.time() - began:6.1f}] {text}", flush=True)

    context = multiprocessing.get_context("spawn")
    tasks, results = context.Queue(), context.Queue()
    crew = [
        context.Process(target=_reader, args=(tasks, results), daemon=False) for _ in range(readers)
    ]
    for process in crew:
        process.start()
    _base(said)
    lineages = [*LADDERS, *(run.name for run in _arms())]
    training = {name: context.Process(target=_lane, args=(name,)) for name in lineages}
    for process in training.values():
        process.start()
    todo, busy, done, kept, last = wanted(), {}, [], 0, time.time()
    notes = {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "jobs": {},
    }
    while time.time() - began < seconds and (todo or busy):
        while not results.empty():
            name, took, error = results.get()
            busy.pop(name, None)
            done.append(name)
            notes["jobs"][name] = {"seconds": took, "error": error}
            said(f"read {name} {took}s {error}; {len(todo)} to do, {len(busy)} at work")
        for name, process in list(training.items()):
            if not process.is_alive():
                said(f"training of {name} ended with {process.exitcode}")
                notes.setdefault("training", {})[name] = {
                    "exit": process.exitcode,
                    "at": round(time.time() - began, 1),
                }
                del training[name]
        alive = set(training)
        todo = [job for job in todo if _hope(job, alive)]
        ready = [
            job
            for job in todo
            if job.weights is None or (job.weights / "model.safetensors").is_file()
        ]
        for job in ready[: max(0, readers - len(busy))]:
            busy[job.name] = time.time()
            todo.remove(job)
            tasks.put(job)
        if len(done) > kept:  # now: the time on the machine may be over at any moment
            collect(folder, notes)
            kept = len(done)
        if time.time() - last > 45:
            last = time.time()
            said(
                f"{len(done)} read, at work {sorted(busy)}, trained on {sorted(training)}; "
                + busyness()
            )
        time.sleep(0.3)
    for process in [*training.values(), *crew]:
        process.kill()
    collect(folder, notes)
    said(f"{len(done)} read, {len(todo)} left")


def _base(said) -> None:
    """The base as its package holds it, with the template; once, for all lineages."""
    from crystal.lab import training
    from crystal.lab.recipes import load_recipe

    training.train_ladder(load_recipe(PARENT), root() / "runs" / PARENT, ["base"])
    other = root() / "runs" / LADDERS[1] / "base"
    if not other.exists():
        shutil.copytree(root() / "runs" / PARENT / "base", other)
        (other.parent / "logs").mkdir(exist_ok=True)
        shutil.copy(root() / "runs" / PARENT / "logs" / "base.minutes", other.parent / "logs")
    said("the base is there")


def _arms():
    from crystal.lab.experiments import load_experiment

    return load_experiment(ARMS).runs


def _hope(job: Job, alive: set[str]) -> bool:
    """Whether a job's weights are there or may come."""
    if job.weights is None or (job.weights / "model.safetensors").is_file():
        return True
    return (job.ladder if job.ladder != ARMS else job.rung.split("/")[1]) in alive


def take(folder: Path) -> None:
    """Archives into data/: descriptions, training records, and every new read-out as one shard a
    ladder, with who made it.
    """
    for archive in sorted(folder.glob("*.tar")):
        name = archive.stem
        with tempfile.TemporaryDirectory() as aside, tarfile.open(archive) as tar:
            tar.extractall(aside, filter="data")
            for kind in ("ladders", "training"):
                for path in Path(aside, "data", kind).glob(f"{name}.*"):
                    shutil.copy(path, root() / "data" / kind)
            adopt(name, sorted(Path(aside, "read").glob("*")))


def adopt(ladder: str, homes: list[Path]) -> None:
    """Add what the logs of other roots hold of a ladder, and its own does not, as one shard."""
    from crystal.keep import manifest, shards, store

    here, known = os.environ.get("CRYSTAL_ROOT", str(root())), store.keys(ladder)
    tables, made = [], {}
    for home in homes:
        os.environ["CRYSTAL_ROOT"] = str(home)
        table, records = store.read(ladder), manifest.records(ladder)
        os.environ["CRYSTAL_ROOT"] = here
        if known.intersection(shards.keys_of(table)) or not len(table):
            continue
        tables.append(table.cast(shards.SCHEMA))
        for record in records:
            for producer in record["producers"]:
                who = json.dumps(
                    {k: v for k, v in producer.items() if k != "parts"}, sort_keys=True
                )
                for part in producer["parts"]:
                    place = (*record["checkpoints"][part["checkpoint"]], part["form"])
                    old = made.setdefault(who, {}).get(place, {"rows": 0, "seconds": 0.0})
                    made[who][place] = part | {
                        "rows": part["rows"] + old["rows"],
                        "seconds": round(part["seconds"] + old["seconds"], 3),
                    }
    if not tables:
        return
    checkpoints = sorted({place[:2] for parts in made.values() for place in parts})
    table = pa.concat_tables(tables).sort_by([("task", "ascending"), ("revision", "ascending")])
    facts = {
        "rows": len(table),
        "tasks": sorted(set(table["task"].to_pylist())),
        "forms": sorted(set(table["form"].to_pylist())),
        "checkpoints": [list(place) for place in checkpoints],
        "producers": [
            json.loads(who)
            | {
                "parts": [
                    part | {"checkpoint": checkpoints.index(place[:2])}
                    for place, part in parts.items()
                ]
            }
            for who, parts in made.items()
        ],
    }
    with manifest.alone(ladder):
        manifest.write(ladder, shards.packed(table), facts)
    print(f"{ladder}: {len(table)} cells")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=540.0)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--take", action="store_true")
    told = parser.parse_args()
    if told.take:
        take(told.folder)
        return
    conduct(told.folder, told.seconds, told.readers)


if __name__ == "__main__":
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
