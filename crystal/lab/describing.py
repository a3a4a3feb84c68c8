"""Writes a ladder's description: what `crystal.ask.ladders.load_ladder` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .. import texts
from ..ask.ladders import description, load_ladder, pins, weights_sha256
from ..files import root, write_file


def pinned(folder: Path) -> dict[str, Any]:
    """Fields of a rung's row that say which checkpoint it is: source, revision, files."""
    source = folder.relative_to(root()).as_posix()
    return {"source": source, "revision": weights_sha256(folder), "files": pins(folder)}


def rows(name: str) -> list[dict[str, Any]]:
    """The rungs of a description as written. Raises: CrystalError as `load_ladder` does."""
    load_ladder(name, unpinned=True)  # so that what is not sound is not written again
    path = description(name)
    mend = f"git checkout -- {path}"
    return texts.parse_yaml(texts.read_text(path, mend), path, mend)["rungs"]


def write(path: Path, fields: dict[str, Any], rungs: list[dict[str, Any]]) -> None:
    """Write a description, whole or not at all; rungs with the same files share their list."""
    same: dict[str, dict] = {}
    rows = [dict(row) for row in rungs]
    for row in rows:
        if row.get("files"):
            row["files"] = same.setdefault(repr(row["files"]), row["files"])
    write_file(path, yaml.safe_dump({**fields, "rungs": rows}, sort_keys=False, width=200).encode())
