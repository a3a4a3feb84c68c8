"""Runs pages through papermill, the only executor: several at a time, each whole or not at all.

A page is made in `_build/running/`, then its folder is renamed to `_build/pages/<id>/`: a failed or killed run
leaves the old page and no half of a new one. Kernels speak over sockets in a private folder: free TCP ports, which
Jupyter chooses half a second before it binds them, may by then be another kernel's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..ask.ladders import load_ladder
from ..cores import cores
from ..errors import CrystalError
from ..files import PACKAGE, mend_of, root
from ..present import verdicts
from ..present.show import CONTEXT
from ..present.views import check_read
from ..texts import line
from ..workers import Died, alone, kill_children, side_by_side
from .freshness import fingerprint, fresh, seconds
from .pages import STYLE, Page, on_ladders, page_list, parameters, sha, values

HOW = {"final": "rlvr", "quantile": 0.9, "seed": 0, "permutations": 999}  # what a survey depends on
RUNNING = "_build/running"  # pages in the making: <id>-<process>
SOCKETS = "crystal-kernel-"  # folders of sockets: this, the process, a random end
LONGEST = 103 - len("/s-5")  # bytes of a folder whose sockets' paths every system takes (macOS 103, Linux 107)


def run_all(jobs: int | None = None, say=print, ladders: Sequence[str] = ()) -> list[str]:
    """Run the stale pages of the page list, slowest first, at most `jobs` (default: processors) at a time.

    ladders: shown by the pages that can show any, in place of the page list's; a run without them restores these pages.
    Returns the ids run. Pages that do not fail are kept even if others fail.
    Raises: CrystalError for ladders that cannot be shown, before anything is run; naming each failed page, its cell and the
    exception.
    """
    if ladders:
        check_read(ladders)
    sweep()
    _forget_unlisted(page_list())
    pages = page_list().values()
    alike = Counter(page.template for page in pages)  # never timed: pages that are one of a kind take longest
    stale = sorted((page for page in pages if not fresh(page, on_ladders(page, ladders))),
                   key=lambda page: (-(seconds(page) or float("inf")), alike[page.template]))
    if not stale:
        return []
    jobs = min(jobs or cores(), len(stale))
    _measure([values(page, on_ladders(page, ladders)) for page in stale], jobs, say)
    failures, began = [], time.perf_counter()
    tasks = [(page, on_ladders(page, ladders)) for page in stale]
    for number, done in enumerate(side_by_side(run_here, tasks, jobs), 1):
        page, _ = done.task
        if done.error:
            failures.append(_failed(page, done.error))
        took = "failed" if done.error else f"{done.result:.1f} s"
        left = (time.perf_counter() - began) / number * (len(stale) - number)
        say(f"[{number:>{len(str(len(stale)))}}/{len(stale)}] {page.id}: {took}, {left:.0f} s left")
    if failures:
        raise CrystalError(f"{len(failures)} of {len(stale)} pages failed\n" + "\n".join(map(str, failures)).rstrip("."))
    return [page.id for page in stale]


def _measure(chosen: Sequence[Mapping[str, Any]], jobs: int, say) -> None:
    """Compute the claims that these pages show and that are not kept, each once, before any page.

    chosen: the parameters of each page.
    """
    wanted: dict[str, tuple[str, dict[str, Any]]] = {}
    for given in chosen:
        how = {name: given.get(name, usual) for name, usual in HOW.items()}
        for name in (*given.get("ladders", ()), *given.get("parents", ())):
            wanted[json.dumps([name, how], sort_keys=True)] = name, how
    todo = [one for one in wanted.values() if load_ladder(one[0]).kind == "ladder"]
    for done in side_by_side(verdicts.measure, todo, jobs):
        if done.result:  # of what cannot be measured, the page that needs it says so
            say(f"measured {done.task[0]}: {done.result:.1f} s")


def _forget_unlisted(pages: Mapping[str, Page]) -> None:
    """Remove pages that the list no longer has: they would go stale unseen."""
    for folder in (root() / "_build/pages").glob("*"):
        if folder.name not in pages:
            shutil.rmtree(folder)


def run(page: Page, overrides: Mapping[str, Any] | None = None) -> float:
    """Run one page through papermill, in a process of its own, and put its folder in place; returns seconds.

    The folder holds page.ipynb, what `show` wrote (svg, csv, json, claims.json) and, written last, stamp.json.
    Raises: CrystalError naming page, cell and exception; the old page, if any, stays.
    """
    sweep()
    try:
        return alone(run_here, page, overrides)
    except Exception as error:
        raise _failed(page, error) from error


def sweep() -> None:
    """Remove what killed runs left: half-made pages and folders of sockets whose process is gone.

    An old page that was aside while the new one was put in place goes back, if the new one is not there.
    """
    for left in sorted((root() / RUNNING).glob("*-*")):
        id, _, process = left.name.rpartition("-")
        if _alive(process.partition(".")[0]):
            continue
        page = root() / "_build/pages" / id
        if left.suffix == ".old" and not page.exists():
            page.parent.mkdir(parents=True, exist_ok=True)
            left.rename(page)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    for folder in Path(tempfile.gettempdir()).glob(f"{SOCKETS}*"):
        if not _alive(folder.name.removeprefix(SOCKETS).partition("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)  # another user's stays


def _alive(process: str) -> bool:
    """Whether a process of that number runs; whoever it is, what it may be making is left alone."""
    import psutil

    try:
        return process.isdecimal() and psutil.Process(int(process)).status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OverflowError):
        return False


def _failed(page: Page, error: BaseException) -> CrystalError:
    """The sentence for a page that was not made, whatever the reason."""
    if isinstance(error, CrystalError):
        return error
    said = line(" ".join(f"{type(error).__name__}: {error}".split()))
    if isinstance(error, Died):
        said = f"{error}: it was killed, or there was too little memory"
    return CrystalError(f"page {page.id} was not made: {said}", mend="make reproduce runs it again; fewer JOBS take less memory")


def run_here(page: Page, overrides: Mapping[str, Any] | None = None) -> float:
    """`run`, in this process: its kernel is a child of it."""
    began = time.perf_counter()
    work = root() / RUNNING / f"{page.id}-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        stamp = {"page": page.id, "template": page.template, "fingerprint": fingerprint(page, overrides)}
        _execute(page, work, stamp["fingerprint"])
        stamp["outputs"] = {path.name: sha(path) for path in sorted(work.iterdir())}
        stamp["seconds"] = round(time.perf_counter() - began, 2)
        (work / "stamp.json").write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
        _replace(work, page.folder)
        return stamp["seconds"]
    except OSError as error:
        raise CrystalError(f"page {page.id} could not be written: {error}", mend=mend_of(error, work)) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _replace(new: Path, old: Path) -> None:
    """Put folder `new` where `old` is. A kill in between leaves the old one aside, for `sweep`."""
    old.parent.mkdir(parents=True, exist_ok=True)
    if old.exists():
        old.rename(new.with_suffix(".old"))
    new.rename(old)
    shutil.rmtree(new.with_suffix(".old"), ignore_errors=True)


def _execute(page: Page, work: Path, inputs: Mapping[str, Any]) -> None:
    """papermill run of the page into `work`/page.ipynb, cleaned of everything that differs from run to run."""
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    declared, chosen, listed = parameters(page.notebook), inputs["parameters"], values(page)
    context = {
        "id": page.id, "folder": str(work), "style": str(root() / STYLE), "parameters": chosen, "inputs": inputs,
        "help": {name: parameter.help for name, parameter in declared.items()},
        "changed": {name: [listed[name], value] for name, value in chosen.items() if value != listed[name]},
    }
    output, log = work / "page.ipynb", work.with_suffix(".log")
    try:
        with _environment(context, work), _sockets() as config, _log(log):
            notebook = papermill.execute_notebook(
                page.notebook, output, {n: v for n, v in chosen.items() if v != declared[n].default},
                kernel_name="python3", config=config, cwd=root(), progress_bar=False,
                request_save_on_cell_execute=False, autosave_cell_every=0,
                shutdown_kernel="immediate",  # nothing of it is needed; asking it to end takes .4 s
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"])  # else it may print its own end as an error
    except PapermillExecutionError as error:
        raise _failure(page, output, error) from None  # the kernel's traceback is in the kept notebook
    except OSError:  # a full disk, say: `run_here` says so
        raise
    except Exception as error:  # the kernel died, or never began; of why, its log says most in its last line
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"{error} {last}".strip()) from error
    finally:
        kill_children()  # a kernel that never answered is still there
        log.unlink(missing_ok=True)

    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index:02d}"
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    nbformat.write(notebook, output)


def _failure(page: Page, output: Path, error: Any) -> CrystalError:
    """The sentence of a failed run; its notebook, with the traceback, is kept beside the pages. Ours needs no cell number."""
    kept = root() / "_build/failed" / f"{page.id}.ipynb"
    kept.parent.mkdir(parents=True, exist_ok=True)
    output.replace(kept)
    if error.ename == "CrystalError":
        return CrystalError(f"page {page.id} was not made: {error.evalue}".rstrip("."))
    added = {"injected-parameters", "papermill-error-cell-tag"}  # cells the template does not have
    cells = [c for c in json.loads(kept.read_text(encoding="utf-8"))["cells"] if not added & set(c["metadata"].get("tags", ()))]
    number = next(i for i, cell in enumerate(cells) if cell.get("execution_count") == error.exec_count)
    what = f"page {page.id} failed in cell {number} of notebooks/{page.template}.ipynb: {error.ename}: {error.evalue}"
    return CrystalError(what, mend=f"see {kept.relative_to(root())}; the old page, if any, is untouched")


@contextlib.contextmanager
def _sockets() -> Iterator[Any]:
    """Settings of a kernel that listens in a private folder; on TCP where the folder's path is too long."""
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix=f"{SOCKETS}{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        short = len(os.fsencode(folder)) <= LONGEST
        yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/s"}} if short else {})


@contextlib.contextmanager
def _log(path: Path) -> Iterator[None]:
    """Send what this process and its kernel print to a file: a kernel that is left alone tells whoever listens."""
    before = [os.dup(1), os.dup(2)]
    with open(path, "wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        for number, old in zip((1, 2), before, strict=True):
            os.dup2(old, number)
            os.close(old)


@contextlib.contextmanager
def _environment(context: Mapping[str, Any], work: Path) -> Iterator[None]:
    """Environment the kernel inherits: one thread, fixed hashes, this package, this interpreter's kernel, no user profile."""
    before = dict(os.environ)
    path = os.pathsep.join(filter(None, (str(PACKAGE.parent), before.get("PYTHONPATH"))))
    profile = work.with_suffix(".ipython")
    os.environ |= {CONTEXT: json.dumps(context), "CRYSTAL_ROOT": str(root()), "PYTHONPATH": path, "PYTHONHASHSEED": "0",
                   "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1",
                   "IPYTHONDIR": str(profile), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before
        shutil.rmtree(profile, ignore_errors=True)
