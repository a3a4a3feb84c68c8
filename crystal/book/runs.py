"""Runs pages through papermill, the only executor: several at a time, each whole or not at all.

A page is made in `_build/running/`, then its folder is renamed to `_build/pages/<id>/`: a failed or killed run leaves the
old page and no half of a new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ..cores import cores
from ..errors import CrystalError
from ..files import PACKAGE, root
from ..present.show import CONTEXT
from ..present.views import check_read
from .freshness import fingerprint, fresh, seconds
from .pages import STYLE, Page, on_ladders, page_list, parameters, sha, values


def run_all(jobs: int | None = None, say=print, ladders: Sequence[str] = ()) -> list[str]:
    """Run the stale pages of the page list, slowest first, at most `jobs` (default: processors) at a time.

    ladders: shown by the pages that can show any, in place of the page list's; a run without them restores these pages.
    Returns the ids run. Pages that do not fail are kept even if others fail.
    Raises: CrystalError for ladders that cannot be shown, before anything is run; naming each failed page, its cell and the
    exception.
    """
    if ladders:
        check_read(ladders)
    _forget_unlisted(page_list())
    pages = page_list().values()
    alike = Counter(page.template for page in pages)  # never timed: pages that are one of a kind take longest
    stale = sorted((page for page in pages if not fresh(page, on_ladders(page, ladders))),
                   key=lambda page: (-(seconds(page) or float("inf")), alike[page.template]))
    if not stale:
        return []
    jobs = min(jobs or cores(), len(stale))
    failures, began = [], time.perf_counter()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run, page, on_ladders(page, ladders)): page for page in stale}
        for done, future in enumerate(as_completed(running), 1):
            page = running[future]
            try:
                took = f"{future.result():.1f} s"
            except CrystalError as error:
                failures.append(error)
                took = "failed"
            left = (time.perf_counter() - began) / done * (len(stale) - done)
            say(f"[{done:>{len(str(len(stale)))}}/{len(stale)}] {page.id}: {took}, {left:.0f} s left")
    if failures:
        raise CrystalError(f"{len(failures)} of {len(stale)} pages failed\n" + "\n".join(map(str, failures)).rstrip("."))
    return [page.id for page in stale]


def _forget_unlisted(pages: Mapping[str, Page]) -> None:
    """Remove pages that the list no longer has: they would go stale unseen."""
    for folder in (root() / "_build/pages").glob("*"):
        if folder.name not in pages:
            shutil.rmtree(folder)


def run(page: Page, overrides: Mapping[str, Any] | None = None) -> float:
    """Run one page through papermill and put its folder in place; returns the seconds it took.

    The folder holds page.ipynb, what `show` wrote (svg, csv, json, claims.json) and, written last, stamp.json.
    Raises: CrystalError naming page, cell and exception; the old page, if any, stays.
    """
    began = time.perf_counter()
    work = root() / "_build/running" / f"{page.id}-{os.getpid()}"
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
        raise CrystalError(f"page {page.id} could not be written: {error}",
                           mend="free disk space, then run the command again") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _replace(new: Path, old: Path) -> None:
    """Put folder `new` where `old` is. A kill in between leaves no folder, which reads as not run."""
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
    output = work / "page.ipynb"
    try:
        with _environment(context, work):
            notebook = papermill.execute_notebook(
                page.notebook, output, {n: v for n, v in chosen.items() if v != declared[n].default}, kernel_name="python3",
                cwd=root(), progress_bar=False, request_save_on_cell_execute=False, autosave_cell_every=0,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"])  # else it may print its own end as an error
    except PapermillExecutionError as error:
        raise _failure(page, output, error) from None  # the kernel's traceback is in the kept notebook

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
