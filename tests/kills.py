"""kill -9 at random moments, over the commands that write: nothing lost, no half taken for whole, nobody left behind.

    python tests/kills.py 100 --seed 1

Works in a copy of this repository. After every kill: no process of the command is alive, the stored read-outs and
draws and all other files are as their manifests say, every page that was finished is still whole. In the end each
command, run to its end, finds everything it needs. Not a test of pytest: it takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parent.parent
TABLE = "data/published/one_word_choice.csv"
COMMANDS = {  # command -> seconds within which it is killed
    "reproduce --jobs 2": 25, "page liquid-coin quantile=0.7": 6, "page settling-coin quantile=0.8": 6,
    "resample nano-llama --rung base --task coin --task die --missing-only": 14, "draw nano-llama": 20,
    f"phases {TABLE} --permutations 99": 6,
}


def copy(to: Path) -> Path:
    """This repository's tracked files, less one ladder's read-outs and draws, which `resample` and `draw` are to fill."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    for name in files.decode().split("\0")[:-1]:
        if not name.startswith(("data/samples/nano-llama/", "data/draws/nano-llama/")):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, to / name)
    return to


def start(root: Path, command: str) -> subprocess.Popen:
    settings = {"CRYSTAL_ROOT": str(root), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "crystal", *command.split()], cwd=root, env=os.environ | settings,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def left_behind(processes: list[psutil.Process], seconds: float = 5.0) -> list[psutil.Process]:
    """Those that are still alive after some seconds."""
    end = time.monotonic() + seconds
    while True:
        alive = [one for one in processes if runs_still(one)]
        if not alive or time.monotonic() > end:
            return alive
        time.sleep(0.1)


def runs_still(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def whole_pages() -> set[str]:
    """Ids of pages whose files are those their stamps name. Raises: AssertionError for one that is half there."""
    from crystal.book import freshness, pages

    found = set()
    for page in pages.page_list().values():
        if stamp := freshness.stamped(page):
            wrong = [name for name, digest in stamp["outputs"].items() if pages.sha(page.folder / name) != digest]
            assert not wrong, f"{page.id} is half there: {wrong}"
            found.add(page.id)
        else:
            assert not page.folder.exists(), f"{page.id} has no stamp"
    return found


def faults() -> list[str]:
    """What `verify` finds, but for cells that are not yet read again."""
    from crystal.keep import drawn, store, sums

    reports = [store.verify("nano-llama"), drawn.verify("nano-llama")]
    return [*sums.problems(), *(said for report in reports for said in report.problems if "missing" not in said)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng, done, cells = random.Random(arguments.seed), Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        root = copy(Path(folder) / "copy")
        os.environ["CRYSTAL_ROOT"] = str(root)
        from crystal.book import runs
        from crystal.keep import store

        finished: set[str] = set()
        for number in range(arguments.kills):
            command = rng.choice(list(COMMANDS))
            process = start(root, command)
            time.sleep(rng.random() * COMMANDS[command])
            try:
                below = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            except psutil.NoSuchProcess:
                below = []
            process.kill()
            process.wait()
            assert not (alive := left_behind(below)), f"{command}: left behind {alive}"
            runs.sweep()
            assert not list((root / runs.RUNNING).glob("*")), "half-made pages are left"
            now = whole_pages()
            assert finished <= now, f"{command}: lost {finished - now}"
            assert not (said := faults()), f"{command}: {said}"
            held = store.verify("nano-llama").cells
            assert held >= cells, f"{command}: cells were lost"
            finished, cells, done[command] = now, held, done[command] + 1
            print(f"{number + 1}: {command}: {len(now)} pages, {held} cells, all whole", flush=True)
        for command in ("resample nano-llama --rung base --task coin --task die --missing-only", f"phases {TABLE}"):
            assert start(root, command).wait() == 0, command
    print(json.dumps({"seed": arguments.seed, "kills": sum(done.values()), "by command": done}, indent=1))


if __name__ == "__main__":
    main()
