"""One page = one row of `book/pages.yml` or `book/own.yml` = one papermill run of a template with typed parameters.

Knows nothing of what a page says, whether it is fresh (`freshness`), how it is run (`runs`) or bound (`book`).
"""

from __future__ import annotations

import ast
import os
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

from ..ask.tasks import TASKS
from ..errors import CrystalError, known
from ..files import file_sha256, root
from ..texts import is_number, parse_json, read_text
from .own_rows import OWN, SPINE_OF_BOOK, YOURS, checked, own_rows

LOCK, STYLE, SPINE = "requirements/light.txt", "book/crystal.mplstyle", "book/pages.yml"
RESTORE = f"git checkout -- {SPINE}"
ON_ANY_LADDER = ("idea", "liquid", "nucleation", "settling", "overview")  # templates that need nothing but four read rungs
TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}  # and list[...] of each


@dataclass(frozen=True, kw_only=True)
class Page:
    """One row of the page list. `params` holds only what differs from the template's defaults."""

    id: str
    template: str
    title: str
    params: dict[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ()  # globs of files other than read-outs that the page reads, relative to the root
    listed: str = SPINE  # the file its row stands in

    @property
    def folder(self) -> Path:
        return root() / "_build/pages" / self.id

    @property
    def notebook(self) -> Path:
        return root() / f"notebooks/{self.template}.ipynb"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One line of a template's parameters cell: `name: type = default  # help`."""

    name: str
    type: str
    default: Any
    help: str


# -- the page list -------------------------------------------------------------------------------------------------


def spine() -> dict:
    """The page list as written: {"root": row, "parts": [{"title", "chapters": [row]}]}, a row may hold "pages": [row].

    The rows of book/own.yml, if there are any, are its last part. Parsed once for all callers: do not change it.
    """
    path = root() / SPINE
    listed = _parsed(read_text(path, RESTORE), str(path))
    own = own_rows()
    return listed if not own else {**listed, "parts": [*listed["parts"], {"title": YOURS, "chapters": own, "listed": OWN}]}


@lru_cache(maxsize=2)
def _parsed(text: str, where: str) -> dict:
    return checked(text, SPINE_OF_BOOK, where, f"correct it, or {RESTORE}")


def rows(entries: Iterable[dict]) -> Iterator[dict]:
    """All rows of the page list in reading order, prose chapters (`file`) and pages (`id`) alike."""
    for row in entries:
        yield row
        yield from rows(row.get("pages", ()))


def page_list() -> dict[str, Page]:
    """Pages by id, in reading order, parameters checked against their templates.

    Raises: CrystalError for an id used twice, an unknown template or parameter, a value of the wrong type.
    """
    listed = spine()
    pages: dict[str, Page] = {}
    for part in [{"chapters": [listed["root"]]}, *listed["parts"]]:
        for row in (row for row in rows(part["chapters"]) if "id" in row):
            page = _page(row, part.get("listed", SPINE))
            if page.id in pages:
                raise CrystalError(f"page {page.id!r} is listed twice", where=page.listed, mend="give each page its own id")
            _check_values(page)
            pages[page.id] = page
    return pages


def _check_values(page: Page) -> None:
    """Raises: CrystalError as `values` does, naming the page and the file of its row."""
    try:
        values(page)
    except CrystalError as error:
        if error.where is not None:
            raise
        raise CrystalError(f"page {page.id!r}: {error.what}", where=page.listed, mend=error.mend) from error


def _page(row: dict, listed: str) -> Page:
    for name in {"template", "title"} - row.keys():
        raise CrystalError(f"page {row['id']!r} lacks a {name}", where=listed, mend=f"add {name}: to its row")
    for name in row.keys() - {"id", "template", "title", "params", "reads", "pages"}:
        raise CrystalError(f"page {row['id']!r} has an unknown field {name!r}", where=listed, mend="use params or reads")
    return Page(id=row["id"], template=row["template"], title=row["title"], params=row.get("params", {}),
                reads=tuple(row.get("reads", ())), listed=listed)


def get(id: str) -> Page:
    """The page of that id, or a sentence with the nearest spelling."""
    pages = page_list()
    return pages[known(id, pages, "page", mend="make params lists the pages")]


# -- parameters ----------------------------------------------------------------------------------------------------


def parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a template, from the annotated literals in the cell tagged `parameters`; nothing is executed."""
    return _parameters(notebook, sha(notebook))


@lru_cache
def _parameters(notebook: Path, content: str) -> dict[str, Parameter]:
    tagged = [c for c in cells(notebook) if "parameters" in c["metadata"].get("tags", ())]
    if len(tagged) != 1:
        raise CrystalError(f"{len(tagged)} cells are tagged parameters, not one", where=notebook.name, mend="tag one cell")
    text = "".join(tagged[0]["source"])
    body = python(text, notebook)
    tokens = tokenize.generate_tokens(StringIO(text).readline)
    help = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    found = {}
    for node in body:
        try:
            name, type, default = node.target.id, ast.unparse(node.annotation), ast.literal_eval(node.value)
            found[name] = Parameter(name=name, type=type, default=default, help=help[node.end_lineno])
            _check(found[name], default)
        except (AttributeError, ValueError, KeyError, TypeError, MemoryError, RecursionError) as error:
            raise CrystalError(f"not a parameter: {ast.unparse(node)}", where=notebook.name,
                               mend="write `name: type = literal  # help`, one a line") from error
    return found


def values(page: Page, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every parameter of the page with its value: template default, then page list, then `overrides`.

    Raises: CrystalError naming the parameter if it is unknown or of the wrong type (papermill would only warn).
    """
    if not page.notebook.is_file():
        there = sorted(path.stem for path in page.notebook.parent.glob("*.ipynb"))
        raise CrystalError(f"page {page.id!r} has no template notebooks/{page.template}.ipynb", where=page.listed,
                           mend=f"write it or name one of: {', '.join(there)}")
    declared = parameters(page.notebook)
    chosen = {name: parameter.default for name, parameter in declared.items()}
    for name, value in {**page.params, **(overrides or {})}.items():
        known(name, declared, f"parameter of {page.id}", mend=f"choose one of: {', '.join(declared)} (make params)")
        chosen[name] = _check(declared[name], value)
    return chosen


def _check(parameter: Parameter, value: Any) -> Any:
    """The value, if it has the declared type; an int will do for a float."""
    inner = parameter.type.removeprefix("list[").removesuffix("]")
    wanted = TYPES[known(inner, TYPES, f"type of parameter {parameter.name}")]
    items = value if parameter.type != inner else [value]
    right = isinstance(items, list) and all(type(v) is wanted or (wanted is float and type(v) is int) for v in items)
    if not right:
        raise CrystalError(f"parameter {parameter.name} wants {parameter.type}, got {value!r}",
                           mend=f"write it like {parameter.name}={_spell(parameter.default)}")
    if parameter.name == "task":
        known(value, TASKS, "task")
    return ([float(v) for v in items] if wanted is float else items) if parameter.type != inner else wanted(value)


def on_ladders(page: Page, ladders: Sequence[str]) -> dict[str, Any]:
    """What to override so that the page shows these ladders, {} where its template asks for more than any ladder has.

    None of them was trained more than once, as far as is known: no intervals over training runs.
    """
    if not ladders or page.template not in ON_ANY_LADDER:
        return {}
    return {"ladders": list(ladders)} | ({"parents": []} if "parents" in parameters(page.notebook) else {})


def parse(page: Page, assignments: Sequence[str]) -> dict[str, Any]:
    """`["quantile=0.8", "ladders=a,b"]` as typed values of the page's parameters; lists are split at commas."""
    declared = parameters(page.notebook)
    given = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise CrystalError(f"{assignment!r} is not of the form name=value", mend=f'make page PAGE={page.id} P="name=value"')
        known(name, declared, f"parameter of {page.id}", mend=f"choose one of: {', '.join(declared)} (make params)")
        given[name] = _check(declared[name], _read(declared[name].type, text))
    return given


def _read(type: str, text: str) -> Any:
    if type.startswith("list["):
        return [_read(type[5:-1], item) for item in text.split(",") if item]
    if type == "bool":
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return TYPES[type](text) if type == "str" or is_number(text) else text
    except ValueError:
        return text  # of the wrong type: _check says so


def _spell(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def describe() -> str:
    """Every template's parameters with type, default and help, as `make params` prints them."""
    lines = []
    for template in dict.fromkeys(page.template for page in page_list().values()):
        declared = parameters(root() / f"notebooks/{template}.ipynb")
        lines += ["", f"{template}" + ("" if declared else "  (no parameters)")]
        lines += [f"  {p.name}: {p.type} = {_spell(p.default)}\n      {p.help}" for p in declared.values()]
    return "\n".join(lines).strip()


# -- files -----------------------------------------------------------------------------------------------------------


def shortest(path: Path) -> str:
    """How pages name a file: from the root if it lies there, so that the repository can be moved, else in full."""
    path = Path(os.path.normpath(path.absolute()))  # links are left alone: where they lead is nobody's business
    return path.relative_to(root()).as_posix() if path.is_relative_to(root()) else path.as_posix()


def cells(notebook: Path) -> list[dict]:
    """Cells of a notebook file, as in its JSON.

    Raises: CrystalError if it is no notebook whose cells have a type, a source and metadata.
    """
    mend = f"correct it, or git checkout -- notebooks/{notebook.name}"
    found = parse_json(read_text(notebook, mend), notebook, mend)
    listed = found.get("cells") if isinstance(found, dict) else None
    if not isinstance(listed, list) or not all(isinstance(cell, dict) and _is_cell(cell) for cell in listed):
        raise CrystalError("it is no notebook: its cells are not cells", where=notebook, mend=mend)
    return listed


def _is_cell(cell: dict) -> bool:
    source, about = cell.get("source"), cell.get("metadata")
    lines = source if isinstance(source, list) else [source]
    tags = about.get("tags", []) if isinstance(about, dict) else None
    return (cell.get("cell_type") in ("code", "markdown", "raw") and all(isinstance(text, str) for text in lines)
            and isinstance(tags, list) and all(isinstance(tag, str) for tag in tags))


def python(code: str, notebook: Path) -> list[ast.stmt]:
    """The statements of a notebook's code. Raises: CrystalError if it is not Python."""
    try:
        return ast.parse(code).body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise CrystalError(f"its code is not Python: {error}", where=notebook,
                           mend=f"correct it, or git checkout -- notebooks/{notebook.name}") from error


def sha(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        what = f"a file the pages depend on cannot be read: {error.strerror or error}"
        raise CrystalError(what, where=path, mend=f"git checkout -- {path}") from error
