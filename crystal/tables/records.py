"""Files of records and the cells of a record, read so that whatever is wrong is one sentence with its place.

JSON lines, JSON, CSV and parquet in; dicts out. Knows nothing of whose records they are (`crystal.tables.foreign`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import texts
from ..errors import CrystalError
from . import packed
from .groups import some
from .sheets import column_names

BOM = b"\xef\xbb\xbf"  # some programs begin UTF-8 with it


def rows(path: Path) -> Iterator[tuple[str, dict]]:
    """Place and cells of every row, of whichever of the three kinds `path` is by its first bytes.

    In CSV nothing means anything but itself: an empty cell is empty text, and NA is the text NA.
    """
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(b"PAR1"):
        yield from _parquet_rows(path)
    elif start.removeprefix(BOM).lstrip().startswith(b"{"):
        yield from (
            (where, dict(zip(column_names(path, row), row.values())))
            for where, row in json_lines(path)
        )
    else:
        yield from _csv_rows(path)


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict]]:
    found = packed.parquet(
        path,
        lambda table: table.rename_columns(column_names(path, table.column_names)).to_pylist(),
        "write it again",
    )
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(found, 1))


def _csv_rows(path: Path) -> Iterator[tuple[str, dict]]:
    line, reader = (
        0,
        csv.reader(io.StringIO(_decoded(path.read_bytes(), str(path)), newline=""), strict=True),
    )
    try:
        names = column_names(path, list(map(texts.uncell, next(reader, []))))
        line = reader.line_num
        for cells in filter(None, reader):
            where = f"{path}, line {(line := reader.line_num)}"
            if len(cells) != len(names):
                raise CrystalError(
                    f"not {len(names)} cells", where=where, mend="quote cells that hold a comma"
                )
            yield where, dict(zip(names, map(texts.uncell, cells), strict=True))
    except csv.Error as error:
        raise CrystalError(
            f"not CSV: {error}",
            where=f"{path}, line {line + 1}",
            mend="write it again, or as JSONL",
        ) from error


def json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    """Place and object of every line that is not blank."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield (where := f"{path}, line {number}"), parsed(line, where)


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CrystalError(f"not text in UTF-8: byte {error.start} is {data[error.start]:#04x}", where=where,
                           mend="iconv -t UTF-8 -f ENCODING FILE > OTHER, and import OTHER") from error


def parsed(data: bytes, where: str) -> dict:
    """The JSON object that `data` is."""
    found = texts.parse_json(
        _decoded(data, where), where, "copy the file again; it may be cut short"
    )
    if not isinstance(found, dict):
        raise CrystalError(
            f"JSON, but no object: {texts.shown(found)}", where=where, mend="one JSON object a line"
        )
    return found


def as_dict(value: Any) -> dict:
    """A JSON object, or an empty one for whatever else stands there, where nothing hangs on it."""
    return value if isinstance(value, dict) else {}


def part(record: Mapping, name: str, where: str, kind: type = dict) -> Any:
    """The object (or list) called `name` in a record; an empty one if there is none, or null.

    Raises: CrystalError for anything else.
    """
    if (value := record.get(name)) is None:
        return kind()
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise CrystalError(f"{name} is {texts.shown(value)}, not {wanted}", where=where,
                           mend="let the tool write its log again")
    return value


def objects(record: Mapping, name: str, where: str) -> list[dict]:
    """The list of objects called `name` in a record. Raises: CrystalError for anything else."""
    found = part(record, name, where, list)
    for value in found:
        part({f"an item of {name}": value}, f"an item of {name}", where)
    return [value or {} for value in found]


def field(fields: Mapping, name: str, where: str) -> str:
    """A name out of a record, as `texts.name` compares it; whole numbers are names, too."""
    mend = f"choose another field among: {some(map(str, fields), 12)}"
    if not (named := _text(fields.get(name)) or "").strip():
        said = f"{name} is {texts.shown(fields[name])!r}" if name in fields else f"no {name}"
        raise CrystalError(f"{said}, where a name was looked for", where=where, mend=mend)
    try:
        return texts.name(named)
    except ValueError as error:
        raise CrystalError(f"{name}: {error}", where=where, mend=mend) from error


def reply_text(value: Any, where: str) -> str | None:
    """A reply: text, a whole number, parts of which the text counts, or nothing."""
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return "\n".join(text_parts(value, where))
    if value is not None and (text := _text(value)) is None:
        raise CrystalError(
            f"a reply is {texts.shown(value)}, not text", where=where, mend="write replies as text"
        )
    return None if value is None else text


def _text(value: Any) -> str | None:
    """Text as it is, a whole number as text; None: neither."""
    if isinstance(value, str):
        return value
    number = texts.written(value)
    return number if number.lstrip("-").isdigit() else None


def text_parts(parts: Iterable[Mapping], where: str) -> Iterator[str]:
    """The texts among the parts of a reply. Raises: CrystalError for a text that is none."""
    for one in parts:
        if one.get("type") in ("text", "output_text"):
            text = one.get("text")
            if not isinstance(text, str):
                raise CrystalError(
                    f"the text of a reply is {texts.shown(text)}",
                    where=where,
                    mend="write replies as text",
                )
            yield text
