"""What happens below a page: kernels, killed processes, Ctrl-C, what a killed run leaves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import yaml
from test_pages import template

from crystal import workers
from crystal.book import kernels, pages, runs
from crystal.cli import main
from crystal.errors import CrystalError

REPOSITORY = Path(__file__).parent.parent
PART = 'part: str = "all"  # which\n'
BEGIN = 'from crystal.present import show\nshow.begin("{0}", part=part)\n'
BODIES = {
    "plain": "show.prose('hello')",
    "transport": "from ipykernel.connect import get_connection_info\nimport json\n"
    "show.prose('over ' + json.loads(get_connection_info())['transport'])",
    "shot": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "killer": "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)",
    "slow": "import time\ntime.sleep(300)",
    "forked": "import sys\nshow.prose(f'fork: {\"crystal.book.kernels\" in sys.modules}')",
}


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A repository of pages, one a template; call it with the templates to list."""
    root = tmp_path / "repository"
    for folder in ("book", "notebooks", "requirements", "data/ladders"):
        (root / folder).mkdir(parents=True)
    monkeypatch.setenv("CRYSTAL_ROOT", str(root))
    (root / pages.STYLE).write_text("font.size: 9\n")
    (root / pages.LOCK).write_text("numpy==1\n")

    def of(*names: str) -> Path:
        rows = [{"id": name, "template": name, "title": name} for name in names]
        for name in names:
            template(root / f"notebooks/{name}.ipynb", PART, BEGIN.format(name) + BODIES[name])
        spine = {
            "root": rows[0],
            "parts": [{"title": "Part", "chapters": rows[1:]}] if rows[1:] else [],
        }
        (root / pages.SPINE).write_text(yaml.safe_dump(spine))
        return root

    return of


def text(root: Path, id: str) -> str:
    return (root / f"_build/pages/{id}/page.ipynb").read_text()


def descendants(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def until(condition, seconds: float = 60.0):
    """The first true value of `condition`, which must come in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def start(root: Path, *command: str) -> subprocess.Popen:
    """It hears Ctrl-C, whoever started the tests: what runs in the background may be deaf to it."""
    return subprocess.Popen(
        [sys.executable, "-m", "crystal", *command],
        env=os.environ | {"CRYSTAL_ROOT": str(root)},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def kernel_of(process: subprocess.Popen) -> list[psutil.Process]:
    """All processes below, once a kernel is among them."""

    def found():
        below = descendants(psutil.Process(process.pid))
        folders = [f"{kernels.SOCKETS}{one.pid}-*/s-1" for one in below]
        listening = any(any(Path(tempfile.gettempdir()).glob(folder)) for folder in folders)
        return below if listening else None

    return until(found)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(workers.alive(str(one.pid)) for one in processes)


# -- kernels


def test_kernels_need_no_tcp_port(site):
    root = site("transport")
    runs.run(pages.get("transport"))
    assert "over ipc" in text(root, "transport")


@pytest.mark.skipif(sys.platform != "linux", reason="forks are unsafe elsewhere")
def test_kernels_are_forked_by_workers_alone(site):
    root = site("forked")
    runs.run(pages.get("forked"))
    assert "fork: True" in text(root, "forked")
    workers.alone(runs.run_here, pages.get("forked"))  # as where a fork is unsafe
    assert "fork: False" in text(root, "forked")


def test_an_edit_while_pages_run_ends_forks(monkeypatch):
    assert kernels._as_imported()
    monkeypatch.setattr(kernels, "BEGAN", 0.0)  # all files are newer
    assert not kernels._as_imported()


def test_sockets_with_too_long_a_path_are_tcp(site, tmp_path, monkeypatch):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    root = site("transport")
    monkeypatch.setenv("TMPDIR", str(long))
    runs.run(pages.get("transport"))
    assert "over tcp" in text(root, "transport")


def test_a_kernel_that_does_not_start_is_a_sentence(site, tmp_path, monkeypatch):
    site("plain")
    broken = tmp_path / "broken/ipykernel_launcher.py"
    broken.parent.mkdir()
    broken.write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    with pytest.raises(CrystalError, match="page plain was not made: .*died"):
        runs.run(pages.get("plain"))


# -- deaths


def _within(process: psutil.Process, folder: Path) -> bool:
    return process.pid != os.getpid() and (process.info["cwd"] or "").startswith(str(folder))


@pytest.mark.parametrize("body", ["shot", "killer"])
def test_a_death_below_a_page_costs_that_page_alone(site, body, capfd):
    root = site("plain", body, "transport")
    assert main(["reproduce", "--jobs", "1"]) == 2
    said = capfd.readouterr().err
    assert f"page {body} was not made" in said and "Traceback" not in said
    until(lambda: not [one for one in psutil.process_iter(["cwd"]) if _within(one, root)])
    assert (
        text(root, "plain")
        and text(root, "transport")
        and not (root / f"_build/pages/{body}").exists()
    )
    runs.sweep()  # as the next run does
    assert not list((root / runs.RUNNING).iterdir())


@pytest.mark.parametrize("command", [("reproduce",), ("page", "slow")])
def test_after_a_kill_of_the_parent_no_worker_stays(site, command):
    root = site("slow")
    process = start(root, *command)
    below = kernel_of(process)
    process.kill()
    process.wait()
    until(lambda: gone(below))
    assert list((root / runs.RUNNING).iterdir())
    runs.sweep()
    assert not list((root / runs.RUNNING).iterdir())
    assert not list(Path(tempfile.gettempdir()).glob(f"{kernels.SOCKETS}{below[0].pid}-*"))


def test_ctrl_c_is_a_sentence_and_keeps_what_is_done(site):
    root = site("plain", "slow")
    process = start(root, "reproduce", "--jobs", "1")
    until(lambda: (root / "_build/pages/plain/stamp.json").exists() and kernel_of(process))
    below = kernel_of(process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and "stopped by Ctrl-C" in said and "Traceback" not in said
    until(lambda: gone(below))  # the interpreter's own helper hears of it a moment later
    assert text(root, "plain")


def test_half_made_pages_of_others_who_run_are_left_alone(site):
    root = site("plain")
    mine, old = (root / runs.RUNNING / f"plain-{process}" for process in (os.getppid(), 2**22 + 1))
    for folder in (mine, old):
        folder.mkdir(parents=True)
    runs.sweep()
    assert mine.is_dir() and not old.exists()


def test_a_kill_between_two_renames_keeps_the_old_page(site):
    root = site("plain")
    aside = root / runs.RUNNING / f"plain-{2**22 + 1}.old"
    aside.mkdir(parents=True)
    (aside / "page.ipynb").write_text("old")
    runs.sweep()
    assert text(root, "plain") == "old" and not aside.exists()


# -- workers


def half_deadly(number: int) -> int:
    if number % 3 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if number % 3 == 1:
        raise CrystalError("no", where=number, hint="yes")
    return number


def test_a_task_that_dies_leaves_the_others():
    found = {
        done.task[0]: done
        for done in workers.side_by_side(half_deadly, [(n,) for n in range(6)], 2)
    }
    assert [found[n].result for n in (2, 5)] == [2, 5]
    assert all(isinstance(found[n].error, workers.Died) for n in (0, 3))
    assert str(found[1].error) == "no (1). Hint: yes" and found[1].error.hint == "yes"


def unsendable() -> object:
    return lambda: None


def test_an_answer_that_cannot_be_sent_is_an_error():
    with pytest.raises(RuntimeError, match="cannot be sent"):
        workers.alone(unsendable)


def child_of_worker() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid


def test_leaving_early_ends_all_that_was_started():
    for done in workers.side_by_side(child_of_worker, [(), ()], 1):
        child = psutil.Process(done.result)
        break
    until(lambda: gone([child]))


# -- lists of pages


@pytest.mark.parametrize(
    "id", ["../../tests", "/etc", "a/b", "a b", "A", "", ".", "a\n", "ä", 7, None, ["a"]]
)
@pytest.mark.parametrize("listed", ["pages.yml", "own.yml"])
def test_ids_never_leave_their_folder(site, id, listed, capsys):
    root = site("plain")
    (root / "tests").mkdir()
    row = {"id": id, "template": "plain", "title": "T"}
    if listed == "own.yml":
        (root / "book/own.yml").write_text(yaml.safe_dump([row]))
    else:
        spine = yaml.safe_load((root / pages.SPINE).read_text())
        spine["parts"] = [{"title": "Part", "chapters": [row]}]
        (root / pages.SPINE).write_text(yaml.safe_dump(spine))
    for command in (["page", str(id)], ["page", str(id), "--why"], ["reproduce"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert listed in said and "Hint: " in said
    assert (root / "tests").is_dir() and not (root / "_build/pages").exists()


def test_templates_and_reads_never_leave_the_root(site):
    root = site("plain")
    for extra in (
        {"template": "../plain"},
        {"reads": ["../*"]},
        {"reads": ["/etc/*"]},
        {"reads": "data"},
    ):
        (root / "book/own.yml").write_text(
            yaml.safe_dump([{"id": "x", "template": "plain", "title": "T"} | extra])
        )
        with pytest.raises(CrystalError, match="own.yml"):
            pages.page_list()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "",
        lambda text: "{",
        lambda text: "\0",
        lambda text: text.replace('"cells"', '"cell"'),
        lambda text: text.replace('"source"', '"sauce"'),
        lambda text: text.replace("show.prose", "show..tell"),
        lambda text: text.replace(": str", ": str ="),
        lambda text: '{"cells": 3}',
        lambda text: '{"cells": [3]}',
        lambda text: "[" * 100000,
    ],
)
@pytest.mark.parametrize(
    "command", [["reproduce"], ["page"], ["page", "plain", "--why"], ["page", "plain"]]
)
def test_a_damaged_notebook_is_a_sentence(site, damage, command, capsys):
    notebook = site("plain") / "notebooks/plain.ipynb"
    notebook.write_text(damage(notebook.read_text()))
    assert main(command) == 2 or command == ["page"]
    said = capsys.readouterr().err
    assert "Traceback" not in said and ("plain" in said or command == ["page"])


def test_unreadable_lists_and_notebooks_are_sentences(site, capsys):
    root = site("plain")
    for name in (pages.SPINE, "notebooks/plain.ipynb", pages.STYLE, pages.LOCK):
        path, aside = root / name, root / "aside"
        path.rename(aside)
        path.mkdir()  # a folder in its place, which even root cannot read
        assert main(["page", "plain", "--why"]) == 2
        assert path.name in capsys.readouterr().err
        path.rmdir()
        aside.rename(path)


def test_a_half_written_stamp_is_no_stamp(site):
    root = site("plain")
    stamp = root / "_build/pages/plain/stamp.json"
    stamp.parent.mkdir(parents=True)
    for text in (
        "",
        "{}",
        "[]",
        '{"fingerprint": 3, "outputs": {}, "seconds": 1}',
        json.dumps({"fingerprint": {}}),
    ):
        stamp.write_text(text)
        assert main(["page", "plain", "--why"]) == 0
    shutil.rmtree(stamp.parent)
