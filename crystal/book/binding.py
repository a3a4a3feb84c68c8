"""Binds prose and executed pages into `_build/source/`; the book engine renders `_build/html/`.

The engine gets plain MyST and notebooks that need none of its help: each output that `show` marked
as MyST becomes a markdown cell. `pack` makes one archive of the book, its data and its code.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import yaml

from .. import __version__
from ..errors import CrystalError
from ..files import explained, root, write_file
from ..keep import sums
from ..keep.manifest import DRAWS, SAMPLES, logs, records, shard_path
from ..present.show import MYST, slug
from ..texts import load_file, markdown
from ..workers import Died, ahead
from .kernels import environment
from .pages import LOCK, OWN, Page, assigned, page_list, sha, spine
from .runs import stamped

ENGINE = ("jupyter_book.sphinx", "myst_nb.sphinx_ext", "sphinx_book_theme", "sphinx_design")
ELSEWHERE = """\
# Runs wherever the repository of this book is installed. In Colab, first say:
# !git clone ADDRESS_OF_THE_REPOSITORY crystal
# %cd crystal
# %pip install -q -e .
"""  # the first cell of a notebook that a reader takes along
NOT_SOURCE = {"pages.yml", "own.yml", "own.yml.tmp", "crystal.mplstyle", "__pycache__"}
CODE = """CHANGELOG.md CITATION.cff LICENSE* Makefile README.md *.toml *.yml .binder/* book/**/*
crystal/**/* notebooks/*.ipynb requirements/* scripts/* tests/**/*"""
NAME = f"crystal-{__version__}"  # of the archive


def assemble() -> Path:
    """Write the book's source tree; files that stay the same keep their times."""
    source, files = root() / "_build/source", dict(_files())
    for path in sorted(source.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and path.relative_to(source).as_posix() not in files:
            path.unlink()
    for name, content in files.items():
        path = source / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return source


def _files() -> Iterator[tuple[str, bytes]]:
    book, own, table = root() / "book", [], []
    for path in sorted(book.rglob("*")):
        if path.is_file() and not NOT_SOURCE & set(path.parts):
            yield path.relative_to(book).as_posix(), path.read_bytes()
    for page in page_list().values():
        if (stamp := stamped(page)) is None:
            what = f"page {page.id} has not been run"
            raise CrystalError(what, where=page.folder, hint="make reproduce")
        yield f"{document(page.id)}.ipynb", _bound(page)
        # of scripts, only what embeds them loads them
        for kind, place in (("svg", "pages"), ("csv", "pages"), ("js", "_theme")):
            for path in sorted(page.folder.glob(f"*.{kind}")):
                yield f"{place}/{page.id}/{path.name}", path.read_bytes()
        claims, made = page.folder / "claims.json", stamp["fingerprint"]
        found = load_file(claims, "make reproduce") if claims.is_file() else {}
        quoted = {"claims": found, "elsewhere": assigned(page, made["parameters"])}
        yield f"claims/{page.id}.json", json.dumps(quoted).encode()
        own += [document(page.id)] if page.listed == OWN else []
        given = ", ".join(f"{name}={value}" for name, value in made["parameters"].items())
        mark = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:12]
        row = (page.id, page.template, given, stamp["seconds"], mark)
        table.append([markdown(cell) for cell in row])
    yield "own.json", json.dumps(own).encode()
    # What each page was made from, and how long it took: the provenance page's table, in MyST.
    columns = ["page", "template", "parameters", "seconds", "fingerprint"]
    yield "pages.csv", pd.DataFrame(table, columns=columns).to_csv(index=False).encode()
    yield "_toc.yml", yaml.safe_dump(contents(), sort_keys=False, allow_unicode=True).encode()


def document(id: str) -> str:
    """Where a page lies in the source tree, without its suffix: the landing page at the top."""
    return id if id == spine()["root"]["id"] else f"pages/{id}"


def contents() -> dict:
    """The engine's table of contents. Under a chapter, `Liquid: coin flip` is `coin flip`."""

    def entry(row: dict, above: str = "") -> dict:
        file, title = row.get("file") or document(row["id"]), row.get("title", "")
        found = {"file": file}
        chapter = f"{file.rpartition('/')[2].capitalize()}: "
        if inner := [entry(below, chapter) for below in row.get("pages", ())]:
            found["sections"] = inner
        if above and title.startswith(above):
            found["title"] = title.removeprefix(above)
        return found

    listed = spine()
    parts = [
        {"caption": part["title"], "chapters": [entry(row) for row in part["chapters"]]}
        for part in listed["parts"]
    ]
    return {"format": "jb-book", "root": document(listed["root"]["id"]), "parts": parts}


def _bound(page: Page) -> bytes:
    """The executed notebook, retitled, MyST outputs as cells, code folded at the end."""
    notebook = json.loads((page.folder / "page.ipynb").read_text(encoding="utf-8"))
    cells, code = [_prose("title", f"# {markdown(page.title)}\n")], []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and source.startswith("# "):  # the template's own title
            cell["source"] = source.partition("\n")[2].lstrip()
        if cell["cell_type"] == "code":
            shown = [output.get("data", {}) for output in cell["outputs"]]
            texts = ["".join(data[MYST]) for data in shown if MYST in data]
            printed = [o for o in cell["outputs"] if MYST not in o.get("data", {})]
            cell["outputs"] = [o for o in printed if o.get("name") != "stderr"]
            tags = set(cell["metadata"].get("tags", ()))
            code += [] if "parameters" in " ".join(tags) else [source]  # these may hold any name
            cell["metadata"]["tags"] = sorted(tags | {"hide-input"})
            cells += [cell] if cell["outputs"] else []
            cells += [_prose(f"{cell['id']}-{i}", text) for i, text in enumerate(texts)]
        elif cell["source"]:
            cells.append(cell)
    whole = "\n\n".join(code)
    ticks = "`" * max(map(len, re.findall("`{3,}", whole)), default=3) + "`"
    fold = f"{ticks}`{{dropdown}} Code of this page\n{ticks}python\n{whole}\n{ticks}\n{ticks}`"
    notebook["cells"] = [*_folded(cells), _prose("code", fold)]
    return json.dumps(notebook, indent=1, ensure_ascii=False).encode()


def _folded(cells: list[dict]) -> Iterator[dict]:
    """The cells; a section of the third level is a fold, up to a heading or another fold."""
    inside: list[str] = []
    for number, cell in enumerate([*cells, None]):
        text = "".join(cell["source"]) if cell and cell["cell_type"] == "markdown" else "#"
        if inside and text.startswith(("#", "`````{dropdown}")):
            yield _prose(f"section-{number}", "\n\n".join([*inside, "::::::::"]))
            inside = []
        if text.startswith("### "):
            title, _, rest = text.removeprefix("### ").partition("\n")
            head = f"::::::::{{dropdown}} {title}\n:class-container: page-fold"
            inside = [head, f'<span id="{slug(title)}"></span>', rest]
        elif inside:
            inside.append(text)
        elif cell:
            yield cell


def _prose(id: str, text: str) -> dict:
    return {"id": id, "cell_type": "markdown", "metadata": {}, "source": text}


def _downloads(html: Path) -> None:
    """Put under each page's download button the notebook that made it, to be run again."""
    for page in page_list().values():
        notebook = json.loads((page.folder / "page.ipynb").read_text(encoding="utf-8"))
        blank = {"outputs": [], "execution_count": None}
        cells = [c | blank if c["cell_type"] == "code" else c for c in notebook["cells"]]
        first = {"id": "elsewhere", "cell_type": "code", "metadata": {}, "source": ELSEWHERE}
        whole = json.dumps(notebook | {"cells": [first | blank, *cells]}, ensure_ascii=False)
        (html / f"_sources/{document(page.id)}.ipynb").write_text(whole, encoding="utf-8")


def index() -> Path:
    """The built book's landing page."""
    return root() / "_build/html/index.html"


def build(*, whole: bool = True, render: Callable | None = None) -> Path | None:
    """Render the book strictly; returns its index, or None if nothing changed since the last build.

    whole=False re-renders only changed documents: quick, but earlier warnings stay hidden, so the
    next whole build does not take it for done. A failed build leaves the old book. render: of an
    `engine`. Raises: CrystalError with the engine's warnings.
    """
    html, home = index().parent, root() / "_build"
    with explained("the book could not be written", html):
        old = html.with_suffix(".old")
        if old.exists() and not html.exists():  # a kill came between the two renames of `_swap`
            old.rename(html)
        source, work, stamp = assemble(), home / "work", home / "book.sha256"
        inputs = f"{_tree_hash(source)} {sha(root() / LOCK)}"
        state = f"{inputs} whole" if whole else inputs
        last = stamp.read_text(errors="replace") if stamp.is_file() else ""
        if index().is_file() and last in (state, f"{inputs} whole"):
            return None
        _render(source, work, whole, render)
        _downloads(work / "_build/html")
        stamp.unlink(missing_ok=True)
        _swap(work / "_build/html", html)
        stamp.write_text(state)
        return index()


def _swap(new: Path, html: Path) -> None:
    """Put a copy of `new` in the old book's place; the next build goes on with `new`."""
    beside, old = html.with_suffix(".new"), html.with_suffix(".old")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(new, beside)
    if html.exists():
        html.rename(old)
    beside.rename(html)
    shutil.rmtree(old, ignore_errors=True)


def _render(source: Path, work: Path, whole: bool, render: Callable | None) -> None:
    if whole:
        shutil.rmtree(work, ignore_errors=True)  # what earlier builds left would stay in the book
    options = ["-n", "-W", "--keep-going"]  # nitpicky; warnings are errors; all of them shown
    options += ["-q", *(["--all"] if whole else []), "--path-output", str(work), str(source)]
    try:
        with contextlib.nullcontext(render) if render else engine() as build:
            status, printed = build(options)
    except Died as error:
        raise CrystalError(f"the book was not built: {error}", hint="make reproduce") from error
    if status:
        lines = re.sub("\x1b\\[[0-9;]*m", "", printed).splitlines()  # colours
        wrong = [x for x in lines if re.search("WARNING|ERROR|rror:", x)] or lines[-5:]
        what = f"the book was not built: {'; '.join(wrong)}"
        hint = "make reproduce takes pages back to their own parameters; else correct what is named"
        raise CrystalError(what, where=source, hint=hint)


@contextlib.contextmanager
def engine() -> Iterator[Callable]:
    """The book engine, in a process that imports it while others work; takes options."""
    with contextlib.ExitStack() as stack:
        with environment():
            render = stack.enter_context(ahead(_engine, None))
        yield render


def _engine(options: list[str] | None) -> tuple[bool, str]:
    """Whether a build fails, and all its output; None: only import what it takes."""
    from jupyter_book.cli.main import main

    if options is None:
        for name in ENGINE:
            importlib.import_module(name)
        return False, ""
    with tempfile.TemporaryFile() as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            status = main(["build", *options])
        except SystemExit as end:
            status = end.code
        except Exception:
            status = traceback.format_exc()
        print(status or "", flush=True)
        sys.stderr.flush()
        file.seek(0)
        return bool(status), file.read().decode(errors="replace")


def _tree_hash(folder: Path) -> str:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    lines = [f"{path.relative_to(folder).as_posix()} {sha(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def pack() -> Path:
    """Write `_build/crystal-<version>.zip`, ready to be deposited, whole or not at all.

        html/                  the book; html/index.html opens offline
        provenance/pages.csv   what each page was made of
        SHA256SUMS             of every other file (sha256sum -c)
        data/, ...             the repository, without what is the reader's own

    The same files give the same bytes.
    Raises: CrystalError if the data is not as recorded, or the book holds pages of the reader's.
    """
    if (root() / OWN).exists():
        what = "the book holds pages of your own tables, which would be published"
        raise CrystalError(what, where=OWN, hint=f"mv {OWN} elsewhere, then make bundle")
    if wrong := sums.problems():
        raise CrystalError("; ".join(wrong), hint="make verify says more")
    path, blob = root() / f"_build/{NAME}.zip", io.BytesIO()
    with explained("the archive could not be written", path):
        with zipfile.ZipFile(blob, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in _with_sums():
                entry = zipfile.ZipInfo(f"{NAME}/{name}")  # of 1980
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
        write_file(path, blob.getvalue())
    return path


def _with_sums() -> Iterator[tuple[str, bytes]]:
    """Name and content of each file; the list of their hashes comes last."""
    lines = []
    for name, path in sorted(_packed().items()):
        content = path.read_bytes()
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        yield name, content
    yield "SHA256SUMS", "".join(lines).encode()


def _packed() -> dict[str, Path]:
    """Where each file lies, by its name in the archive."""
    home, html = root(), index().parent
    found = {f"html/{at.relative_to(html).as_posix()}": at for at in html.rglob("*")}
    found["provenance/pages.csv"] = home / "_build/source/pages.csv"
    recorded = sums.recorded()
    data = [home / name for name in (sums.LIST, *recorded)]
    ours = {Path(name).stem for name in recorded if name.startswith("data/ladders/")}
    for kind in (SAMPLES, DRAWS):
        for ladder in ours & {*logs(kind)}:
            data.append(home / f"data/{kind}/{ladder}/manifest.jsonl")
            data += [shard_path(ladder, record, kind) for record in records(ladder, kind)]
    code = [path for glob in CODE.split() for path in home.glob(glob)]
    found |= {path.relative_to(home).as_posix(): path for path in (*data, *code)}
    return {
        name: path
        for name, path in found.items()
        if path.is_file() and "__pycache__" not in path.parts
    }
