"""Files of records and the cells of a record, read so that whatever is wrong is one sentence with its place.

JSON lines, JSON, CSV and parquet in; dicts out. Knows nothing of whose records they are (`crystal.tables.foreign`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import CrystalError

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
        yield from json_lines(path)
    else:
        yield from _csv_rows(path)


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_table(path, partitioning=None).to_pylist()  # a folder named a=b is no column
    except (pa.ArrowException, OSError) as error:
        raise CrystalError(f"not a whole parquet file: {error}", where=path, mend="write it again") from error
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(found, 1))


def _csv_rows(path: Path) -> Iterator[tuple[str, dict]]:
    reader = csv.DictReader(io.StringIO(_decoded(path.read_bytes(), str(path)), newline=""), strict=True)
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise CrystalError(f"not {len(reader.fieldnames or ())} cells", where=where, mend="quote cells that hold a comma")
            yield where, row
    except csv.Error as error:
        where = f"{path}, line {reader.line_num + 1}"
        raise CrystalError(f"not CSV: {error}", where=where, mend="write it again, or as JSONL") from error


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
    text = _decoded(data, where)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CrystalError(f"broken JSON: {error}", where=where, mend="copy the file again; it may be cut short") from error
    if not isinstance(found, dict):
        raise CrystalError(f"JSON, but no object: {text.strip()!r:.60}", where=where, mend="one JSON object a line")
    return found


def as_dict(value: Any) -> dict:
    """A JSON object, or an empty one for whatever else stands there: null, above all."""
    return value if isinstance(value, dict) else {}


def field(fields: Mapping, name: str, where: str) -> str:
    """A name out of a record; whole numbers are names, too."""
    value = fields.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        said = f"{name} is {value!r:.60}" if name in fields else f"no {name}"
        raise CrystalError(f"{said}, where a name was looked for", where=where,
                           mend=f"choose another field among: {', '.join(map(str, fields))}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise CrystalError(f"{name} holds half a character, {value!r:.60}", where=where, mend="name it by another field")
    return value


def reply_text(value: Any, where: str) -> str | None:
    """A reply: text, a whole number, parts of which the text counts, or nothing."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        return "\n".join(str(part.get("text", "")) for part in value if part.get("type") == "text")
    if value is None or isinstance(value, str):
        return value
    raise CrystalError(f"a reply is {value!r:.60}, not text", where=where, mend="write replies as text")
