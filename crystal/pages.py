"""One page = one row of `book/pages.yml` or `book/own.yml` = one papermill run of a template with typed parameters.

A page is fresh if nothing that can change it has changed: its template, each parameter, the crystal modules it imports,
the figure style, the lock file, the read-outs of the ladders it names, the tables it names, the other files it declares to read.
Its stamp says what these were; `why` compares.

Knows nothing of what a page says, how it is run (`runs`) or bound (`book`).
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from .errors import CrystalError, known
from .ladders import file_sha256, root
from .own_rows import OWN, YOURS, own_rows
from .tasks import TASKS

PACKAGE = Path(__file__).parent
LOCK, STYLE, SPINE = "requirements/light.txt", "book/crystal.mplstyle", "book/pages.yml"
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
    try:
        listed = _parsed(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise CrystalError(f"the page list cannot be read: {error}", where=path, mend="git checkout book/pages.yml") from error
    own = own_rows()
    return listed if not own else {**listed, "parts": [*listed["parts"], {"title": YOURS, "chapters": own, "listed": OWN}]}


@lru_cache(maxsize=2)
def _parsed(text: str) -> dict:
    return yaml.safe_load(text)


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
            values(page)
            pages[page.id] = page
    return pages


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
    return pages[known(id, pages, "page")]


# -- parameters ----------------------------------------------------------------------------------------------------


def parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a template, from the annotated literals in the cell tagged `parameters`; nothing is executed."""
    return _parameters(notebook, sha(notebook))


@lru_cache
def _parameters(notebook: Path, content: str) -> dict[str, Parameter]:
    cells = [c for c in _cells(notebook) if "parameters" in c["metadata"].get("tags", ())]
    if len(cells) != 1:
        raise CrystalError(f"{len(cells)} cells are tagged parameters, not one", where=notebook.name, mend="tag one cell")
    text = "".join(cells[0]["source"])
    tokens = tokenize.generate_tokens(StringIO(text).readline)
    help = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    found = {}
    for node in ast.parse(text).body:
        try:
            name, type, default = node.target.id, ast.unparse(node.annotation), ast.literal_eval(node.value)
            found[name] = Parameter(name=name, type=type, default=default, help=help[node.end_lineno])
            _check(found[name], default)
        except (AttributeError, ValueError, KeyError) as error:
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
        return TYPES[type](text)
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


# -- freshness -----------------------------------------------------------------------------------------------------


def fingerprint(page: Page, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Everything that can change the page, as nested names and hashes; equal fingerprints mean the same page."""
    from .store import manifest_digest

    chosen = values(page, overrides)
    named = [*([chosen["ladder"]] if "ladder" in chosen else []), *chosen.get("ladders", []), *chosen.get("parents", [])]
    read = sorted(path for glob in page.reads for path in root().glob(glob))
    return {
        "template": sha(page.notebook),
        "parameters": chosen,
        "source": {f"crystal/{path.name}": sha(path) for path in imported(page.notebook)},
        "style": sha(root() / STYLE),
        "lock": sha(root() / LOCK),
        "ladders": {name: manifest_digest(name) for name in named},
        "files": {path.relative_to(root()).as_posix(): sha(path) for path in read} | _tables(page, chosen),
    }


def _tables(page: Page, chosen: Mapping[str, Any]) -> dict[str, str]:
    """sha256 of each file that the parameters `data: str` and `tables: list[str]` name, by its path from the root if it lies
    there, else in full."""
    named = [chosen["data"]] if isinstance(chosen.get("data"), str) else []
    named += chosen["tables"] if isinstance(chosen.get("tables"), list) else []
    found = {}
    for name in filter(None, named):
        path = root() / name
        if not path.is_file():
            raise CrystalError(f"page {page.id!r} names the table {name!r}, which is not there", where=page.listed,
                               mend="put it back, name another in the page's row, or delete the row")
        found[shortest(path)] = sha(path)
    return found


def shortest(path: Path) -> str:
    """How pages name a file: from the root if it lies there, so that the repository can be moved, else in full."""
    path = Path(os.path.normpath(path.absolute()))  # links are left alone: where they lead is nobody's business
    return path.relative_to(root()).as_posix() if path.is_relative_to(root()) else path.as_posix()


def imported(notebook: Path) -> list[Path]:
    """The crystal modules a template imports, directly or through another, found in the source without running it."""
    code = "\n".join("".join(c["source"]) for c in _cells(notebook) if c["cell_type"] == "code")
    found: set[str] = set()
    queue = sorted(_imports(code))
    while queue:
        name = queue.pop()
        if name not in found and (PACKAGE / f"{name}.py").is_file():
            found.add(name)
            queue += sorted(_imports((PACKAGE / f"{name}.py").read_text(encoding="utf-8")))
    return [PACKAGE / f"{name}.py" for name in sorted(found | {"__init__"})]


@lru_cache(maxsize=256)  # each module is asked for by every page
def _imports(code: str) -> frozenset[str]:
    """Names `code` imports from crystal, be it `from crystal import a`, `from crystal.a import b`, `from . import a`..."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("crystal.")}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == 1 or module.split(".")[0] == "crystal":
                inner = module if node.level else module.partition(".")[2]
                found |= {inner} if inner else {alias.name for alias in node.names}
    return frozenset(found)


def why(page: Page, overrides: Mapping[str, Any] | None = None) -> list[str]:
    """What makes the page stale, one sentence each, parameters with their old and new value; empty if it is fresh.

    overrides: parameters it should have been run with, other than the page list's.
    """
    try:
        stamp = json.loads((page.folder / "stamp.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ["it has not been run yet"]
    now = fingerprint(page, overrides)
    old = stamp["fingerprint"]
    reasons = [f"parameter {name}: {old['parameters'].get(name)!r} -> {now['parameters'].get(name)!r}"
               for name in sorted(old["parameters"].keys() | now["parameters"])
               if old["parameters"].get(name) != now["parameters"].get(name)]
    names = {"template": page.notebook.relative_to(root()).as_posix(), "style": STYLE, "lock": LOCK}
    reasons += [f"{part} {name} changed" for part, name in names.items() if old[part] != now[part]]
    for part, label in (("source", "source"), ("ladders", "ladder"), ("files", "file")):
        reasons += [f"{label} {name} changed" for name in sorted(old[part].keys() | now[part])
                    if old[part].get(name) != now[part].get(name)]
    reasons += [f"output {name} is missing or was changed" for name, digest in stamp["outputs"].items()
                if not (page.folder / name).is_file() or sha(page.folder / name) != digest]
    return reasons


def fresh(page: Page, overrides: Mapping[str, Any] | None = None) -> bool:
    return not why(page, overrides)


def elsewhere(page: Page) -> list[str]:
    """The ladders its last run showed, if they are not the page list's; else none."""
    stamp = json.loads((page.folder / "stamp.json").read_text(encoding="utf-8"))
    shown = stamp["fingerprint"]["parameters"].get("ladders")
    return [] if shown == values(page).get("ladders") else shown


def seconds(page: Page) -> float | None:
    """Wall time of the page's last run; None before the first."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads((page.folder / "stamp.json").read_text(encoding="utf-8"))["seconds"]
    return None


def _cells(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def sha(path: Path) -> str:
    try:
        return file_sha256(path)
    except FileNotFoundError as error:
        raise CrystalError("a file the pages depend on is missing", where=path, mend=f"git checkout -- {path}") from error
