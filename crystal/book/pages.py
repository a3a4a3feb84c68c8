"""One page = one row of `book/pages.yml` or `book/own.yml` = one papermill run of a template.

`book/own.yml` lists the reader's own pages, over tables of their own; git does not see it. Ids and
templates become paths: a list is checked whole when it is read.
"""

from __future__ import annotations

import ast
import os
import re
import tokenize
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..ask.tasks import TASKS
from ..errors import CrystalError, known, placed
from ..files import Maybe, anything, explained, fields, file_sha256, misfit, root, text, write_file
from ..texts import HOSTILE, is_number, line, load_file, parse_yaml, read_text

LOCK, STYLE, SPINE = "requirements/light.txt", "book/crystal.mplstyle", "book/pages.yml"
OWN, YOURS = "book/own.yml", "Your ladders"  # the list, and the part of the book that it makes
HEAD = """\
# Pages of your own tables, one row each (make page TEMPLATE=phases DATA=answers.csv).
# Delete a row to remove its page.
"""
# Templates that need nothing but four read checkpoints.
ON_ANY_LADDER = ("idea", "liquid", "nucleation", "settling", "overview")
BEYOND = (MemoryError, RecursionError)  # what Python's parser cannot hold
TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}  # also list[...]


def _like(pattern: str) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        return text(value) and re.fullmatch(pattern, value) is not None

    fits.__name__ = f"text like {pattern}"
    return fits


def title(value: object) -> bool:
    return text(value) and value != ""


ROW = {
    "id": Maybe(_like("[a-z0-9-]+")),
    "template": Maybe(_like("[a-z0-9_]+")),
    "file": Maybe(_like("[a-z0-9_-]+")),  # a chapter beside the list
    "title": Maybe(title),
    "params": Maybe({text: anything}),
    "reads": Maybe([_like(r"(?!/)(?!.*\.\.)[^\x00-\x1f]+")]),
}
ROW["pages"] = Maybe([ROW])
PART = {"title": title, "chapters": [ROW]}
SHAPES = {OWN: [ROW], SPINE: {"root": {**ROW, "id": ROW["id"].shape}, "parts": [PART]}}
CORRECT = {SPINE: f"correct it, or git checkout -- {SPINE}"}
CORRECT[OWN] = "correct it, or delete it; an id is made of a-z, 0-9 and hyphens"


@dataclass(frozen=True, kw_only=True)
class Page:
    """One row of a page list. `params` holds only what differs from the template's defaults."""

    id: str
    template: str
    title: str
    params: dict[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ()  # globs of files beside read-outs that it reads, from the root
    listed: str = SPINE  # the file its row stands in

    @property
    def folder(self) -> Path:
        return root() / "_build/pages" / self.id

    @property
    def notebook(self) -> Path:
        return root() / f"notebooks/{self.template}.ipynb"


class Parameter(NamedTuple):
    """One line of a template's parameters cell: `name: type = default  # help`."""

    name: str
    type: str
    default: Any
    help: str


# -- the page lists


def spine() -> dict:
    """{"root": row, "parts": [{"title", "chapters": [row]}]}; a row may hold "pages": [row].

    Rows of book/own.yml are the last part. Parsed once for all callers: do not change it.
    """
    listed, own = _listed(SPINE), _listed(OWN)
    mine = [{"title": YOURS, "chapters": own, "listed": OWN}] if own else []
    return {**listed, "parts": [*listed["parts"], *mine]}


def _listed(name: str) -> Any:
    path = root() / name
    if name == OWN and not path.exists():
        return []
    return _parsed(read_text(path, CORRECT[name]), str(path), name)


@lru_cache(maxsize=4)
def _parsed(written: str, where: str, name: str) -> Any:
    """Raises: CrystalError with the place in the list and what is wrong there."""
    found = parse_yaml(written, where, CORRECT[name])
    if found is None and name == OWN:
        return []
    try:
        wrong = misfit(found, SHAPES[name], "the list")
    except RecursionError:  # a row that holds itself
        wrong = "the list is nested without end"
    if name == SPINE and not wrong:
        every = [(found, SHAPES[SPINE]), *((part, PART) for part in found["parts"])]
        if extra := [name for one, shape in every for name in one if name not in shape]:
            wrong = f"the list has unknown fields: {', '.join(extra)}"
    if wrong:
        raise CrystalError(line(wrong), where=where, hint=CORRECT[name])
    return found


def put(page: Page) -> dict | None:
    """Write a page to book/own.yml, over the row of its id or as the last; returns the old row."""
    path, listed = root() / OWN, list(_listed(OWN))
    place = next((n for n, one in enumerate(listed) if one.get("id") == page.id), len(listed))
    before = listed[place] if place < len(listed) else None
    listed[place:] = [
        {name: getattr(page, name) for name in ("id", "template", "title", "params")},
        *listed[place + 1 :],
    ]
    text = HEAD + yaml.safe_dump(listed, sort_keys=False, allow_unicode=True)
    with explained("the list of your own pages could not be written", path):
        write_file(path, text.encode())
    return before


def rows(entries: Iterable[dict]) -> Iterator[dict]:
    """All rows in reading order, prose chapters (`file`) and pages (`id`) alike."""
    for row in entries:
        yield row
        yield from rows(row.get("pages", ()))


def page_list() -> dict[str, Page]:
    """Pages by id, in reading order. Raises: CrystalError for an id used twice, or as `_page`."""
    listed = spine()
    pages: dict[str, Page] = {}
    for part in [{"chapters": [listed["root"]]}, *listed["parts"]]:
        for row in (row for row in rows(part["chapters"]) if "id" in row or "file" not in row):
            page = _page(row, part.get("listed", SPINE))
            if page.id in pages:
                what = f"page {page.id!r} is listed twice"
                raise CrystalError(what, where=page.listed, hint="give each page its own id")
            pages[page.id] = page
    return pages


def _page(row: dict, listed: str) -> Page:
    """Raises: CrystalError for an unknown template, field or parameter."""
    own = {name: value for name, value in row.items() if name != "pages"}
    with placed(listed, CORRECT[listed]):
        called = f"page {(row.get('id') or row.get('title'))!r}"
        page = Page(**fields(own, Page, called, listed=None), listed=listed)
    try:
        values(page)
    except CrystalError as error:
        if error.where is not None:
            raise
        what = f"page {page.id!r}: {error.what}"
        raise CrystalError(what, where=listed, hint=error.hint) from error
    return page


def get(id: str) -> Page:
    """The page of that id, or a sentence with the nearest spelling."""
    pages = page_list()
    return pages[known(id, pages, "page", hint=f"the ids are in {SPINE} and {OWN}")]


def page_of(template: str, data: str, assignments: Sequence[str] = ()) -> Page:
    """The page of `template` over the table `data`; its id and title come from the table's name.

    Raises: CrystalError for a template that takes no table, a table that is not there or cannot be
    named, a wrong parameter, or an id that a page of the book has.
    """
    notebooks = sorted((root() / "notebooks").glob("*.ipynb"))
    declared = {path.stem: parameters(path).get("data") for path in notebooks}
    taking = [name for name, data in declared.items() if data is not None and data.type == "str"]
    known(template, taking, "template that takes a table")
    if not (path := Path(data).expanduser()).is_file():
        hint = f"make page TEMPLATE={template} DATA=path/to/answers.csv"
        raise CrystalError(f"there is no table {data!r}", hint=hint)
    if HOSTILE.search(shortest(path)):
        what = "the path of the table holds a control character"
        raise CrystalError(what, where=repr(data), hint="rename the file, or its folder")
    named = {"id": f"{template}-{slug(path)}", "template": template, "title": path.stem}
    given = parse(Page(**named, listed=OWN), assignments)
    if "data" in given:
        raise CrystalError("the table is named twice", hint="name it once, by DATA=")
    page = Page(**named, params={"data": shortest(path), **given}, listed=OWN)
    values(page)
    if (other := page_list().get(page.id)) is None or other.listed == OWN:
        return page
    what = f"the book has a page {page.id!r} already"
    raise CrystalError(what, where=other.listed, hint="give the table another name")


def slug(path: Path) -> str:
    """A table's name as part of an id: Tülu answers.csv -> tulu-answers."""
    plain = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode().lower()
    if not (words := re.findall("[a-z0-9]+", plain)):
        what = "the table's name has no letter or digit for a page to be called by"
        raise CrystalError(what, where=path, hint="give it a name in plain letters")
    return "-".join(words)[:100].rstrip("-")  # names of files have their limits


# -- parameters


def parameters(notebook: Path) -> dict[str, Parameter]:
    """A template's parameters: the literals of its cell tagged `parameters`; nothing is run."""
    # papermill's `inspect_notebook` passes over a line that it cannot read: here it is an error.
    return _parameters(notebook, sha(notebook))


@lru_cache
def _parameters(notebook: Path, content: str) -> dict[str, Parameter]:
    tagged = [c for c in cells(notebook) if "parameters" in c["metadata"].get("tags", ())]
    if len(tagged) != 1:
        what = f"{len(tagged)} cells are tagged parameters, not one"
        raise CrystalError(what, where=notebook.name, hint="tag one cell")
    text, found = "".join(tagged[0]["source"]), {}
    body, tokens = python(text, notebook), tokenize.generate_tokens(StringIO(text).readline)
    help = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    for node in body:
        try:
            name, type = node.target.id, ast.unparse(node.annotation)
            default = ast.literal_eval(node.value)
            found[name] = Parameter(name, type, default, help[node.end_lineno])
            _check(found[name], default)
        except (AttributeError, LookupError, TypeError, ValueError, *BEYOND) as error:
            what = f"not a parameter: {ast.unparse(node)}"
            hint = "one `name: type = literal  # help` a line"
            raise CrystalError(what, where=notebook.name, hint=hint) from error
    return found


def values(page: Page, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every parameter of the page: template default, then page list, then `overrides`.

    Raises: CrystalError for one that is unknown or of the wrong type (papermill would only warn).
    """
    if not page.notebook.is_file():
        there = ", ".join(sorted(path.stem for path in page.notebook.parent.glob("*.ipynb")))
        what = f"page {page.id!r} has no template notebooks/{page.template}.ipynb"
        raise CrystalError(what, where=page.listed, hint=f"write it or name one of: {there}")
    declared = parameters(page.notebook)
    chosen = {name: parameter.default for name, parameter in declared.items()}
    for name, value in {**page.params, **(overrides or {})}.items():
        chosen[name] = _check(_declared(page, declared, name), value)
    return chosen


def _declared(page: Page, declared: Mapping[str, Parameter], name: str) -> Parameter:
    hint = f"choose one of: {', '.join(declared)} (make page explains them)"
    return declared[known(name, declared, f"parameter of {page.id}", hint=hint)]


def _check(parameter: Parameter, value: Any) -> Any:
    """The value, if it has the declared type; an int will do for a float."""
    inner = parameter.type.removeprefix("list[").removesuffix("]")
    wanted = TYPES[known(inner, TYPES, f"type of parameter {parameter.name}")]
    many = parameter.type != inner
    items = value if many else [value]
    kinds = (float, int) if wanted is float else (wanted,)
    if not isinstance(items, list) or not all(type(item) in kinds for item in items):
        what = f"parameter {parameter.name} wants {parameter.type}, got {value!r}"
        hint = f"write it like {parameter.name}={spelled(parameter.default)}"
        raise CrystalError(what, hint=hint)
    if parameter.name == "task":
        own = "; a page of a task of your own: crystal ask --help"
        known(value, TASKS, "task", hint=f"choose one of: {', '.join(TASKS)}{own}")
    if many and (twice := [item for item in items if items.count(item) > 1]):
        what = f"parameter {parameter.name} names {twice[0]!r:.60} twice"
        raise CrystalError(what, hint="name it once")
    return list(map(wanted, items)) if many else wanted(value)


def on_ladders(page: Page, ladders: Sequence[str]) -> dict[str, Any]:
    """What to override so that the page shows these ladders; {} if its template cannot show any."""
    if not ladders or page.template not in ON_ANY_LADDER:
        return {}
    # Each was trained only once, as far as is known: no intervals over training runs.
    alone = {"parents": []} if "parents" in parameters(page.notebook) else {}
    return {"ladders": list(ladders)} | alone


def parse(page: Page, assignments: Sequence[str]) -> dict[str, Any]:
    """`["quantile=0.8", "ladders=a,b"]` as typed values; lists are split at commas."""
    declared, given = parameters(page.notebook), {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            what = f"{assignment!r} is not of the form name=value"
            raise CrystalError(what, hint=f'make page PAGE={page.id} P="name=value"')
        parameter = _declared(page, declared, name)
        if name in given:
            raise CrystalError(f"parameter {name} is given twice", hint="give it once")
        given[name] = _check(parameter, _read(parameter.type, text))
    return given


def _read(type: str, text: str) -> Any:
    """The value, or the text where it is none of that type: `_check` says so."""
    if type.startswith("list["):
        return [_read(type[5:-1], item) for item in text.split(",") if item]
    if type == "bool":
        return {"true": True, "false": False}.get(text.lower(), text)
    whole = type == "int" and re.fullmatch(r"[+-]?\d{1,99}", text, re.ASCII)
    return TYPES[type](text) if whole or type == "float" and is_number(text) else text


def spelled(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def changed(page: Page, chosen: Mapping[str, Any]) -> dict[str, list]:
    """Parameters whose value is not the page list's: name -> [its value, the chosen one]."""
    listed = values(page)
    return {n: [listed.get(n), value] for n, value in chosen.items() if value != listed.get(n)}


def assigned(page: Page, chosen: Mapping[str, Any]) -> list[str]:
    """The same as `parse` takes them."""
    return [f"{name}={spelled(value)}" for name, (_, value) in changed(page, chosen).items()]


def describe() -> str:
    """Every template's parameters with type, default and help."""
    lines = []
    for template in dict.fromkeys(page.template for page in page_list().values()):
        declared = parameters(root() / f"notebooks/{template}.ipynb").values()
        lines += ["", template if declared else f"{template}  (no parameters)"]
        lines += [f"  {p.name}: {p.type} = {spelled(p.default)}\n      {p.help}" for p in declared]
    return "\n".join(lines).strip()


def shortest(path: Path) -> str:
    """How pages name a file: from the root if it lies there, so that the root can move."""
    path = Path(os.path.normpath(path.absolute()))  # a link is named, not what it leads to
    return (path.relative_to(root()) if path.is_relative_to(root()) else path).as_posix()


def cells(notebook: Path) -> list[dict]:
    """Cells of a notebook file, as in its JSON, each with a type, a source and metadata."""
    return load_file(notebook, _restore(notebook), {"cells": [CELL]}, "the notebook")["cells"]


CELL = {"cell_type": text, "source": (text, [text]), "metadata": {"tags": Maybe([text])}}


def python(code: str, notebook: Path) -> list[ast.stmt]:
    """The statements of a notebook's code."""
    try:
        return ast.parse(code).body
    except (SyntaxError, ValueError, *BEYOND) as error:
        what = f"its code is not Python: {error}"
        raise CrystalError(what, where=notebook, hint=_restore(notebook)) from error


def _restore(notebook: Path) -> str:
    return f"correct it, or git checkout -- notebooks/{notebook.name}"


def sha(path: Path) -> str:
    """sha256 of a file that pages depend on."""
    with explained("a file the pages depend on cannot be read", path, f"git checkout -- {path}"):
        return file_sha256(path)
