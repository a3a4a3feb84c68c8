"""Whether a page is as its inputs are: fingerprints of all that can change it, and what has changed since it ran.

A page is fresh if nothing that can change it has changed: its template, each parameter, the crystal modules it imports,
the figure style, the lock file, the read-outs of the ladders it names, the other files it declares to read. Its stamp says
what these were; `why` compares. Knows nothing of what a page says or how it is run.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import CrystalError
from ..files import PACKAGE, root
from .pages import LOCK, STYLE, Page, cells, python, sha, shortest, values


def fingerprint(page: Page, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Everything that can change the page, as nested names and hashes; equal fingerprints mean the same page."""
    from ..keep.store import manifest_digest

    chosen = values(page, overrides)
    named = [*([chosen["ladder"]] if "ladder" in chosen else []), *chosen.get("ladders", []), *chosen.get("parents", [])]
    read = sorted(path for glob in page.reads for path in root().glob(glob))
    return {
        "template": sha(page.notebook),
        "parameters": chosen,
        "source": {f"crystal/{path.relative_to(PACKAGE).as_posix()}": sha(path) for path in imported(page.notebook)},
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


def imported(notebook: Path) -> list[Path]:
    """The crystal modules a template imports, directly or through another, found in the source without running it; and
    the `__init__` of every room they stand in."""
    code = "\n".join("".join(c["source"]) for c in cells(notebook) if c["cell_type"] == "code")
    found: set[Path] = set()
    python(code, notebook)  # raises where it is none
    queue = [*_imports(code)]
    while queue:
        for path in _files(queue.pop()) - found:
            found.add(path)
            queue += _imports(path.read_text(encoding="utf-8"), path.relative_to(PACKAGE.parent).parts[:-1])
    return sorted(found)


def _files(name: str) -> set[Path]:
    """What importing the dotted name runs: the module, if it is one, and the `__init__` of every package around it."""
    inner = name.split(".")[1:]
    packages = [PACKAGE.joinpath(*inner[:depth]) / "__init__.py" for depth in range(len(inner) + 1)]
    return {path for path in (*packages, PACKAGE.joinpath(*inner).with_suffix(".py")) if path.is_file()}


@lru_cache(maxsize=256)  # each module is asked for by every page
def _imports(code: str, package: tuple[str, ...] = ()) -> frozenset[str]:
    """Dotted names of what `code`, a module of `package`, imports from crystal, be it `from crystal.a import b`, `from . import
    a`, `from ..a import b`...; b may be a module or a name in one."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            around = package[: len(package) + 1 - node.level] if node.level else ()
            source = ".".join((*around, *([node.module] if node.module else [])))
            found |= {source} | {f"{source}.{alias.name}" for alias in node.names}
    return frozenset(name for name in found if name.split(".")[0] == "crystal")


def why(page: Page, overrides: Mapping[str, Any] | None = None) -> list[str]:
    """What makes the page stale, one sentence each, parameters with their old and new value; empty if it is fresh.

    overrides: parameters it should have been run with, other than the page list's.
    """
    now, stamp = fingerprint(page, overrides), stamped(page)
    if stamp is None:
        return ["it has not been run yet"]
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


def stamped(page: Page) -> dict | None:
    """The stamp of the page's last run; None if there is none, or none that is whole."""
    try:
        stamp = json.loads((page.folder / "stamp.json").read_text(encoding="utf-8"))
        parts = [stamp["outputs"], *(stamp["fingerprint"][name] for name in ("parameters", "source", "ladders", "files"))]
        texts = [stamp["fingerprint"][name] for name in ("template", "style", "lock")]
        whole = all(isinstance(part, dict) for part in parts) and all(isinstance(text, str) for text in texts)
        return stamp if whole and isinstance(stamp["seconds"], int | float) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def elsewhere(page: Page) -> list[str]:
    """The ladders its last run showed, if they are not the page list's; else none."""
    shown = (stamped(page) or {"fingerprint": {"parameters": {}}})["fingerprint"]["parameters"].get("ladders")
    return [] if shown == values(page).get("ladders") else shown


def seconds(page: Page) -> float | None:
    """Wall time of the page's last run; None before the first."""
    stamp = stamped(page)
    return stamp["seconds"] if stamp else None
