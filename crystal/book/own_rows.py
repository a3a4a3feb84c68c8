"""The list of the reader's own pages, `book/own.yml`, which git does not see: rows like those of `book/pages.yml`.

Knows nothing of what the rows mean.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ..errors import CrystalError
from ..files import root, write_file

OWN, YOURS = "book/own.yml", "Your ladders"  # the list, and the part of the book that its rows make
HEAD = "# Pages of your own tables, one row each (make page TEMPLATE=phases DATA=answers.csv). Delete a row to remove its page.\n"


def own_rows() -> list[dict]:
    """The rows of book/own.yml, in order; none if there is no such file. Parsed once for all callers: do not change them.

    Raises: CrystalError if it is not a list of rows with an id.
    """
    path = root() / OWN
    try:
        found = _parsed(path.read_text(encoding="utf-8")) or []
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CrystalError(f"the list of your own pages cannot be read: {' '.join(str(error).split())}", where=path,
                           mend="correct it, or delete it") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in found):
        raise CrystalError("the list of your own pages is no list of rows with an id", where=path,
                           mend="correct it, or delete it")
    return found


@lru_cache(maxsize=2)
def _parsed(text: str) -> Any:
    return yaml.safe_load(text)


def put(row: dict) -> dict | None:
    """Write a row to book/own.yml, in the place of the row of its id if there is one, else last; returns the row replaced.

    Raises: CrystalError if the disk refuses; the list is then as it was.
    """
    rows = list(own_rows())
    place = next((i for i, other in enumerate(rows) if other["id"] == row["id"]), len(rows))
    before = rows[place] if place < len(rows) else None
    rows[place:place + 1] = [row]
    _write(root() / OWN, HEAD + yaml.safe_dump(rows, sort_keys=False, allow_unicode=True))
    return before


def _write(path: Path, text: str) -> None:
    """The whole file or the old one."""
    try:
        write_file(path, text.encode())
    except OSError as error:
        raise CrystalError(f"the list of your own pages could not be written: {error}", where=path,
                           mend="free disk space, then run the command again") from error
