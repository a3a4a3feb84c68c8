"""Page lists as they are written, and the reader's own: `book/own.yml`, which git does not see.

A list is checked whole when it is read: ids and templates become paths, so they hold nothing that leaves a folder.
Knows nothing of what the rows mean.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ..errors import CrystalError
from ..files import mend_of, root, write_file
from ..texts import line, parse_yaml, read_text

OWN, YOURS = "book/own.yml", "Your ladders"  # the list, and the part of the book that its rows make
HEAD = "# Pages of your own tables, one row each (make page TEMPLATE=phases DATA=answers.csv). Delete a row to remove its page.\n"

_TEXT, _TITLE = {"type": "string"}, {"type": "string", "minLength": 1}
_ROW = {
    "type": "object",
    "oneOf": [{"required": ["id"], "not": {"required": ["file"]}}, {"required": ["file"]}],
    "properties": {
        "id": {"type": "string", "pattern": "^[a-z0-9-]+\\Z"},
        "template": {"type": "string", "pattern": "^[a-z0-9_]+\\Z"},
        "file": {"type": "string", "pattern": "^[a-z0-9_-]+\\Z"},  # a chapter beside the list
        "title": _TITLE,
        "params": {"type": "object", "propertyNames": {"pattern": "^[a-z_]+\\Z"}},
        # patterns of files under the root
        "reads": {"type": "array", "items": {"type": "string", "pattern": "^(?!/)(?!.*\\.\\.)[^\\x00-\\x1f]+\\Z"}},
        "pages": {"type": "array", "items": {"$ref": "#/$defs/row"}},
    },
}
ROWS = {"type": ["array", "null"], "items": {"$ref": "#/$defs/row"}, "$defs": {"row": _ROW}}
SPINE_OF_BOOK = {
    "type": "object", "required": ["root", "parts"], "additionalProperties": False, "$defs": {"row": _ROW},
    "properties": {
        "root": {"$ref": "#/$defs/row", "required": ["id"]},
        "parts": {"type": "array", "items": {
            "type": "object", "required": ["title", "chapters"], "additionalProperties": False,
            "properties": {"title": _TITLE, "chapters": {"type": "array", "items": {"$ref": "#/$defs/row"}}}}},
    },
}


def checked(text: str, schema: dict, where: object, mend: str) -> Any:
    """What the YAML `text` holds, if it is of the schema.

    Raises: CrystalError with the place in the list and what is wrong there.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    found = parse_yaml(text, where, mend)
    try:
        wrong = best_match(Draft202012Validator(schema).iter_errors(found))
    except RecursionError as error:  # a row that holds itself
        raise CrystalError("the list is nested without end", where=where, mend=mend) from error
    if wrong is not None:
        place = "/".join(map(str, wrong.absolute_path)) or "the whole list"
        raise CrystalError(f"{place}: {line(wrong.message):.200}", where=where, mend=mend)
    return found


def own_rows() -> list[dict]:
    """The rows of book/own.yml, in order; none if there is no such file. Parsed once for all callers: do not change them.

    Raises: CrystalError if it is not a list of rows with an id.
    """
    path = root() / OWN
    if not path.exists():
        return []
    return _parsed(read_text(path, "correct it, or delete it"), str(path)) or []


@lru_cache(maxsize=2)
def _parsed(text: str, where: str) -> Any:
    mend = "correct it, or delete it; an id is made of a-z, 0-9 and hyphens"
    return checked(text, ROWS, where, mend)


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
                           mend=mend_of(error, path)) from error
