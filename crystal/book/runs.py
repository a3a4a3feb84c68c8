"""Runs stale pages through papermill: several at a time, each whole or not at all.

A page is fresh if nothing that can change it has changed since its stamp was written: template,
parameters, modules it imports, figure style, lock file, read-outs and other files it reads. It is
made in `_build/running/`, then renamed to `_build/pages/<id>/`: a failed run leaves the old page.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import files
from ..ask.ladders import load_ladder
from ..errors import CrystalError
from ..files import PACKAGE, explained, root
from ..keep.store import manifest_digest
from ..present import verdicts
from ..present.show import CONTEXT
from ..present.views import check_read
from ..texts import line
from ..workers import Died, alive, alone, cores, kill_children, side_by_side
from . import kernels, pages
from .pages import LOCK, STYLE, Page, cells, page_list, parameters, sha, shortest, values

HOW = {"final": "rlvr", "quantile": 0.9, "seed": 0, "permutations": 999}  # of a survey
RUNNING = "_build/running"  # pages in the making: <id>-<process>
NAMED = {files.text: files.anything}
FINGERPRINT = dict.fromkeys(("parameters", "source", "ladders", "files"), NAMED)
FINGERPRINT |= dict.fromkeys(("template", "style", "lock"), files.text)
STAMP = {"fingerprint": FINGERPRINT, "outputs": NAMED, "seconds": files.number}


# -- freshness


def fingerprint(page: Page, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Everything that can change the page, as nested names and hashes."""
    chosen = values(page, overrides)
    named = [chosen["ladder"]] if "ladder" in chosen else []
    named += chosen.get("ladders", []) + chosen.get("parents", [])
    source = {f"crystal/{at.relative_to(PACKAGE).as_posix()}": at for at in imported(page.notebook)}
    read = sorted(path for glob in page.reads for path in root().glob(glob))
    return {
        "template": sha(page.notebook),
        "parameters": chosen,
        "source": {name: sha(path) for name, path in source.items()},
        "style": sha(root() / STYLE),
        "lock": sha(root() / LOCK),
        "ladders": {name: manifest_digest(name) for name in named},
        "files": {shortest(path): sha(path) for path in (*read, *_tables(page, chosen))},
    }


def _tables(page: Page, chosen: Mapping[str, Any]) -> Iterator[Path]:
    """The files that the parameters `data: str` and `tables: list[str]` name."""
    named = [chosen["data"]] if isinstance(chosen.get("data"), str) else []
    named += chosen["tables"] if isinstance(chosen.get("tables"), list) else []
    for name in filter(None, named):
        if not (root() / name).is_file():
            what = f"page {page.id!r} names the table {name!r}, which is not there"
            hint = "put it back, name another in the page's row, or delete the row"
            raise CrystalError(what, where=page.listed, hint=hint)
        yield root() / name


def imported(notebook: Path) -> list[Path]:
    """Crystal modules that a template imports, directly or not, with their `__init__`s."""
    code = "\n".join("".join(c["source"]) for c in cells(notebook) if c["cell_type"] == "code")
    pages.python(code, notebook)  # raises where it is none
    found, seen, queue = set(), {""}, [*_imports(code)]
    while queue:
        if (name := queue.pop()) in seen:
            continue
        seen.add(name)
        queue.append(name.rpartition(".")[0])  # the packages around it are run, too
        place = PACKAGE.joinpath(*name.split(".")[1:])
        for path in filter(Path.is_file, (place / "__init__.py", place.with_suffix(".py"))):
            found.add(path)
            package = path.relative_to(PACKAGE.parent).parts[:-1]
            queue += _imports(path.read_text(encoding="utf-8"), package)
    return sorted(found)


@lru_cache(maxsize=256)  # each module is asked for by every page
def _imports(code: str, package: tuple[str, ...] = ()) -> frozenset[str]:
    """Dotted names that `code`, a module of `package`, imports from crystal."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            around = package[: len(package) + 1 - node.level] if node.level else ()
            source = ".".join(filter(None, (*around, node.module)))
            found |= {source} | {f"{source}.{alias.name}" for alias in node.names}
    return frozenset(name for name in found if name.split(".")[0] == "crystal")


def why(page: Page, overrides: Mapping[str, Any] | None = None) -> list[str]:
    """What makes the page stale with these parameters, a sentence each."""
    now, stamp = fingerprint(page, overrides), stamped(page)
    if stamp is None:
        return ["it has not been run yet"]
    old, reasons = stamp["fingerprint"], []
    names = {"template": f"notebooks/{page.template}.ipynb", "style": STYLE, "lock": LOCK}
    for part, name in names.items():
        if old[part] != now[part]:
            reasons.append(f"{part} {name} changed")
    for part in ("parameters", "source", "ladders", "files"):
        for name in sorted(old[part].keys() | now[part]):
            was, given = old[part].get(name), now[part].get(name)
            if was != given:
                how = f": {was!r} -> {given!r}" if part == "parameters" else " changed"
                reasons.append(f"{part.removesuffix('s')} {name}{how}")
    for name, digest in stamp["outputs"].items():
        if not (page.folder / name).is_file() or sha(page.folder / name) != digest:
            reasons.append(f"output {name} is missing or was changed")
    return reasons


def stamped(page: Page) -> dict | None:
    """The stamp of the page's last run; None if there is none, or none that is whole."""
    try:
        stamp = json.loads((page.folder / "stamp.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return None if files.misfit(stamp, STAMP) else stamp


# -- runs


def run_all(jobs: int | None = None, say=print, ladders: Sequence[str] = ()) -> list[str]:
    """Run the stale pages, slowest first, at most `jobs` (default: processors) at a time.

    ladders: shown by the pages that can show any; a run without them restores these pages. Returns
    the ids run; pages that succeed are kept even if others fail. Raises: CrystalError for ladders
    that cannot be shown, or naming each failed page and why.
    """
    if ladders:
        check_read(ladders)
    sweep()
    listed = page_list()
    for folder in (root() / "_build/pages").glob("*"):
        if folder.name not in listed:  # it would go stale unseen
            shutil.rmtree(folder)
    tasks = [(page, pages.on_ladders(page, ladders)) for page in listed.values()]
    if not (tasks := [task for task in tasks if why(*task)]):
        return []
    alike = Counter(page.template for page in listed.values())  # one of a kind takes longest

    def slowest(task: tuple[Page, Any]) -> tuple[float, int]:
        stamp = stamped(task[0])
        return -stamp["seconds"] if stamp else -float("inf"), alike[task[0].template]

    tasks.sort(key=slowest)
    jobs = min(jobs or cores(), len(tasks))
    _measure([values(page, given) for page, given in tasks], jobs, say)
    failures, began, of = [], time.perf_counter(), len(tasks)
    with kernels.environment():
        for number, done in enumerate(side_by_side(run_warm, tasks, jobs), 1):
            page, took = done.task[0], "failed" if done.error else f"{done.result:.1f} s"
            if done.error:
                failures.append(_failed(page, done.error))
            left = (time.perf_counter() - began) / number * (of - number)
            say(f"[{number:>{len(str(of))}}/{of}] {page.id}: {took}, {left:.0f} s left")
    if failures:
        each = "\n".join(map(str, failures)).rstrip(".")
        raise CrystalError(f"{len(failures)} of {of} pages failed\n{each}")
    return [page.id for page, _ in tasks]


def _measure(chosen: Sequence[Mapping[str, Any]], jobs: int, say) -> None:
    """Compute, once, what pages with these parameters claim and is not kept."""
    wanted: dict[tuple, tuple[str, dict[str, Any]]] = {}
    for given in chosen:
        how = {name: given.get(name, usual) for name, usual in HOW.items()}
        for name in (*given.get("ladders", ()), *given.get("parents", ())):
            if load_ladder(name).kind == "ladder":
                wanted[name, *how.values()] = name, how
    for done in side_by_side(verdicts.measure, wanted.values(), jobs):
        if done.result:  # of what cannot be measured, the page that needs it says so
            say(f"measured {done.task[0]}: {done.result:.1f} s")


def run(page: Page, overrides: Mapping[str, Any] | None = None) -> float:
    """Run one page in a process of its own, and put its folder in place; returns seconds.

    The folder holds page.ipynb, what `show` wrote and, written last, stamp.json.
    Raises: CrystalError naming page, cell and exception; the old page, if any, stays.
    """
    sweep()
    try:
        with kernels.environment():
            return alone(run_warm, page, overrides)
    except Exception as error:
        raise _failed(page, error) from error


def sweep() -> None:
    """Remove what killed runs left, half-made pages and sockets; an old page aside goes back."""
    for left in sorted((root() / RUNNING).glob("*-*")):
        id, _, process = left.name.rpartition("-")
        if alive(process.partition(".")[0]):
            continue  # what it may be making is left alone
        page = root() / "_build/pages" / id
        if left.suffix == ".old" and not page.exists():
            page.parent.mkdir(parents=True, exist_ok=True)
            left.rename(page)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    for folder in Path(tempfile.gettempdir()).glob(f"{kernels.SOCKETS}*"):
        if not alive(folder.name.removeprefix(kernels.SOCKETS).partition("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)  # another user's stays


def _failed(page: Page, error: BaseException) -> CrystalError:
    if isinstance(error, CrystalError):
        return error
    reason = line(" ".join(f"{type(error).__name__}: {error}".split()))
    if isinstance(error, Died):
        reason = f"{error}: it was killed, or there was too little memory"
    hint = "make reproduce runs it again; fewer JOBS take less memory"
    return CrystalError(f"page {page.id} was not made: {reason}", hint=hint)


def run_warm(page: Page, overrides: Mapping[str, Any] | None = None) -> float:
    """`run`, in this process or a fork of it: what the page imports stays for the next."""
    inner = (path.relative_to(PACKAGE.parent).with_suffix("") for path in imported(page.notebook))
    modules = [".".join(path.parts).removesuffix(".__init__") for path in inner]
    return kernels.apart(run_here, page, overrides, modules=modules)


def run_here(page: Page, overrides: Mapping[str, Any] | None = None) -> float:
    """`run`, in this process: its kernel is a child of it."""
    began = time.perf_counter()
    work = root() / RUNNING / f"{page.id}-{os.getpid()}"
    old = work.with_suffix(".old")  # a kill between the renames leaves the old page, for `sweep`
    shutil.rmtree(work, ignore_errors=True)
    try:
        with explained(f"page {page.id} could not be written", work):
            work.mkdir(parents=True)
            stamp: dict[str, Any] = {"fingerprint": fingerprint(page, overrides)}
            _execute(page, work, stamp["fingerprint"])
            stamp["outputs"] = {path.name: sha(path) for path in sorted(work.iterdir())}
            stamp["seconds"] = round(time.perf_counter() - began, 2)
            (work / "stamp.json").write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
            page.folder.parent.mkdir(parents=True, exist_ok=True)
            if page.folder.exists():
                page.folder.rename(old)
            work.rename(page.folder)
            shutil.rmtree(old, ignore_errors=True)
            return stamp["seconds"]
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _execute(page: Page, work: Path, inputs: Mapping[str, Any]) -> None:
    """papermill run into `work`/page.ipynb, cleaned of what differs from run to run."""
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    declared, chosen = parameters(page.notebook), inputs["parameters"]
    output = work / "page.ipynb"
    log, profile = work.with_suffix(".log"), work.with_suffix(".ipython")
    try:
        own = {CONTEXT: json.dumps(_context(page, work, inputs)), "IPYTHONDIR": str(profile)}
        with kernels.environment(own), _log(log), kernels.settings() as kernel:
            notebook = papermill.execute_notebook(
                page.notebook,
                output,
                {n: value for n, value in chosen.items() if value != declared[n].default},
                kernel_name="python3",
                cwd=root(),
                progress_bar=False,
                request_save_on_cell_execute=False,
                autosave_cell_every=0,
                shutdown_kernel="immediate",  # asking it to end takes .4 s
                # else it may print its own end as an error
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
                **kernel,
            )
    except PapermillExecutionError as error:
        # the traceback is in the kept notebook
        raise _failure(page, output, error, chosen) from None
    except OSError:  # a full disk, say: `run_here` says so
        raise
    except Exception as error:  # the kernel died or never began; its log's last line says why
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"{error} {last}".strip()) from error
    finally:
        kill_children()  # a kernel that never answered is still there
        log.unlink(missing_ok=True)
        shutil.rmtree(profile, ignore_errors=True)

    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index:02d}"
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
    kernel = notebook.metadata["kernelspec"]
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    nbformat.write(notebook, output)


def _context(page: Page, work: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What `show` is told of its page."""
    return {
        "id": page.id,
        "folder": str(work),
        "style": str(root() / STYLE),
        "parameters": inputs["parameters"],
        "inputs": inputs,
        "help": {name: one.help for name, one in parameters(page.notebook).items()},
        "changed": pages.changed(page, inputs["parameters"]),
    }


def _failure(page: Page, output: Path, error: Any, chosen: Mapping[str, Any]) -> CrystalError:
    """The sentence of a failed run; its notebook, with the traceback, is kept."""
    failed = root() / "_build/failed" / f"{page.id}.ipynb"
    failed.parent.mkdir(parents=True, exist_ok=True)
    output.replace(failed)
    if error.ename == "CrystalError":  # ours needs no cell number
        return CrystalError(f"page {page.id} was not made: {error.evalue}".rstrip("."))
    added = {"injected-parameters", "papermill-error-cell-tag"}  # not the template's
    own = [c for c in cells(failed) if not added & set(c["metadata"].get("tags", ()))]
    ran = [cell.get("execution_count") for cell in own]
    place = f"cell {ran.index(error.exec_count)} of notebooks/{page.template}.ipynb"
    what = f"page {page.id} failed in {place}: {error.ename}: {error.evalue}"
    hint = f"see {failed.relative_to(root())}; the old page, if any, is untouched"
    if other := ", ".join(pages.assigned(page, chosen)):
        hint = f"correct {other:.200} (make page lists what is taken), or {hint}"
    return CrystalError(what, hint=hint)


@contextlib.contextmanager
def _log(path: Path) -> Iterator[None]:
    """Send what this process and its kernel print to a file: a kernel left alone prints, too."""
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
