"""Harm done to a copy of this repository, at random: what must not happen, does not. No test of
pytest: it takes minutes.

    python tests/harm.py kills 100 --seed 1
    python tests/harm.py flips 600 --seed 1

kills: `kill -9` of commands that write. After every kill no process of the command is alive, what
is stored is as its manifests say, and every page that was finished is still whole. In the end the
commands run to their end.
flips: a byte flipped or the end cut off, of any file of data/, notebooks/ and book/*.yml. `crystal
verify` finds it.
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
    "reproduce --jobs 2": 25,
    "page liquid-coin quantile=0.7": 6,
    "page settling-coin quantile=0.8": 6,
    "resample nano-llama --checkpoint base --task coin --task die --missing-only": 14,
    "draw nano-llama": 20,
    f"phases {TABLE} --permutations 99": 6,
}


def copy(to: Path, without: tuple[str, ...]) -> Path:
    """This repository's tracked files, without those of folders that commands are to fill."""
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True
    ).stdout
    for name in files.decode().split("\0")[:-1]:
        if not name.startswith(without or "/"):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, to / name)
    return to


def start(root: Path, command: str) -> subprocess.Popen:
    settings = {"CRYSTAL_ROOT": str(root), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "crystal", *command.split()],
        cwd=root,
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


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
    """Ids of pages whose files are those their stamps name. Raises: AssertionError for one that is
    half there.
    """
    from crystal.book import pages, runs

    found = set()
    for page in pages.page_list().values():
        if stamp := runs.stamped(page):
            wrong = [
                name
                for name, digest in stamp["outputs"].items()
                if pages.sha(page.folder / name) != digest
            ]
            assert not wrong, f"{page.id} is half there: {wrong}"
            found.add(page.id)
        else:
            assert not page.folder.exists(), f"{page.id} has no stamp"
    return found


def faults() -> list[str]:
    """What `verify` finds, but for cells that are not yet read again."""
    from crystal.keep import drawn, store, sums

    reports = [store.verify("nano-llama"), drawn.verify("nano-llama")]
    return [
        *sums.problems(),
        *(said for report in reports for said in report.problems if "missing" not in said),
    ]


def kills(root: Path, number: int, rng: random.Random) -> Counter:
    """Commands killed, and how often each."""
    from crystal.book import runs
    from crystal.keep import store

    done, finished, cells = Counter(), set(), 0
    for count in range(1, number + 1):
        command = rng.choice(list(COMMANDS))
        killed(root, command, rng.random() * COMMANDS[command])
        runs.sweep()
        assert not list((root / runs.RUNNING).glob("*")), "half-made pages are left"
        now, held = whole_pages(), store.verify("nano-llama").cells
        assert finished <= now, f"{command}: lost {finished - now}"
        assert held >= cells, f"{command}: cells were lost"
        assert not (said := faults()), f"{command}: {said}"
        finished, cells, done[command] = now, held, done[command] + 1
        print(f"{count}: {command}: {len(now)} pages, {held} cells, all whole", flush=True)
    for command in COMMANDS:
        if not command.startswith(("reproduce", "page")):
            assert start(root, command).wait() == 0, command
    return done


def killed(root: Path, command: str, seconds: float) -> None:
    """Start a command and kill it. Raises: AssertionError if a process of it stays."""
    process = start(root, command)
    time.sleep(seconds)
    try:
        below = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        below = []
    process.kill()
    process.wait()
    assert not (alive := left_behind(below)), f"{command}: left behind {alive}"


def flips(root: Path, number: int, rng: random.Random) -> Counter:
    """Files harmed, by folder; each was found."""
    from crystal.errors import CrystalError
    from crystal.keep import drawn, store, sums

    checks = {
        "samples": lambda name: store.verify(name).faults,
        "draws": lambda name: drawn.verify(name).faults,
    }
    files = sorted(
        path
        for glob in ("data/**/*", "notebooks/*", "book/*.yml")
        for path in root.glob(glob)
        if path.is_file()
    )
    done: Counter = Counter()
    for path in rng.choices(files, k=number):
        whole, parts = path.read_bytes(), path.relative_to(root).parts
        place = rng.randrange(len(whole))
        flipped = whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :]
        path.write_bytes(rng.choice([flipped, whole[:place]]))
        try:
            found = (
                checks[parts[1]](parts[2])
                if parts[0] == "data" and parts[1] in checks
                else len(sums.problems())
            )
        except CrystalError as error:
            found = error.hint
        path.write_bytes(whole)
        assert found, f"{path}: byte {place} of {len(whole)} was not found"
        done["/".join(parts[:2]) if parts[0] == "data" else parts[0]] += 1
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("harm", choices=("kills", "flips"))
    parser.add_argument("number", type=int)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        without = (
            ("data/samples/nano-llama/", "data/draws/nano-llama/")
            if arguments.harm == "kills"
            else ()
        )
        root = copy(Path(folder) / "copy", without)
        os.environ["CRYSTAL_ROOT"] = str(root)
        harm = {"kills": kills, "flips": flips}[arguments.harm]
        done = harm(root, arguments.number, random.Random(arguments.seed))
    print(
        json.dumps(
            {"seed": arguments.seed, arguments.harm: sum(done.values()), "of": done}, indent=1
        )
    )


if __name__ == "__main__":
    main()
