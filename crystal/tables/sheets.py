"""Files of strangers, read within stated bounds: tables as columns, files of records as dicts.

Complaints name row (CSV's header is row 1) and column, and `inside` the file. pandas would take a
short row as empty cells, rename twins and guess at types: it gets checked cells.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from .. import texts
from ..errors import CrystalError, placed
from ..files import explained
from ..measure.chain import POOLED

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
LARGEST = 2**29  # bytes, unpacked
CELLS = 10**8  # of a table
COLUMNS = 1000
SLACK = 1e-2  # by which probabilities of one group may miss a sum of 1: bfloat16 rounds by 0.4 %
BOM = b"\xef\xbb\xbf"  # some programs begin UTF-8 with it
PACKED = {  # how files begin that are no text, whatever they are called
    b"\x1f\x8b": ("packed by gzip", "gunzip it"),
    b"PK\x03\x04": ("a zip archive, as spreadsheets are", "save the sheet as CSV, or unzip it"),
    b"PAR1": ("parquet", "give it the extension .parquet"),
}
csv.field_size_limit(LARGEST)


class Place(NamedTuple):
    """Who answered what: the rows of one distribution."""

    ladder: str
    stage: str
    task: str
    prompt: str


# -- complaints


@contextlib.contextmanager
def inside(path: Path) -> Iterator[None]:
    """What is said inside of a row, line or column is said of that of the file."""
    try:
        yield
    except CrystalError as error:
        if error.where in (None, path):
            raise
        where = f"{path}, {error.where}" if error.where else path
        raise CrystalError(error.what, where=where, hint=error.hint) from error


def no(what: str, hint: str, column: str = "", row: object = None) -> CrystalError:
    """A complaint about the file that is read."""
    where = [f"row {row}"] if row is not None else []
    where += [f"column {column}"] if column else []
    return CrystalError(what, where=", ".join(where), hint=hint)


def some(items: Iterable[str], most: int = 6) -> str:
    """The items in a row, the first `most` by name, the others by number."""
    items = [texts.short(item) for item in items]
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")


# -- names


def given(name: str, where: object, hint: str = "give another name") -> str:
    """A name that was typed, or comes with a file. Raises: CrystalError if it is hostile."""
    with placed(where, hint):
        return texts.name(name)


def check_task(name: str, where: object) -> None:
    """Raises: CrystalError for a task called as the verdicts over all tasks are."""
    if " ".join(unicodedata.normalize("NFKC", name).casefold().split()) == POOLED:
        what = f"no task may be called {name!r}: the verdicts over all tasks are"
        raise CrystalError(what, where=where, hint="rename the task")


def stage_names(text: str) -> dict[str, str]:
    """`base=step0,sft=step-1000` as canonical stage -> its name in the file.

    Raises: CrystalError if it is not of that form, or names a stage or a name twice.
    """
    found: dict[str, str] = {}
    where = f"--stages {texts.short(text)}"
    for pair in filter(str.strip, text.split(",")):
        stage, _, name = (given(part, where) for part in pair.partition("="))
        if not (stage and name) or stage in found or name in found.values():
            what = f"{texts.short(pair)!r} is not of the form stage=name, or says one twice"
            raise CrystalError(what, hint="say --stages base=step0,sft=step-1000")
        found[stage] = name
    return found


# -- bounds


def check_size(size: int, most: int = LARGEST) -> None:
    """Refuse more than `most` bytes."""
    if not 0 <= size <= most:
        hint = "split it into smaller files, or look at what it holds"
        raise no(f"it unpacks to more than {most >> 20} MiB", hint)


def check_columns(columns: int, rows: int) -> None:
    """Refuse more than COLUMNS, or than CELLS."""
    if columns > COLUMNS or columns * rows > CELLS:
        most = f"{COLUMNS} columns" if columns > COLUMNS else f"{CELLS} cells"
        hint = "write the columns that are needed, one answer a row"
        raise no(f"the table has more than {most}", hint)


def column_names(names: Sequence[object]) -> list[str]:
    """Names of columns as they are compared, no two alike."""
    check_columns(len(names), 0)
    found = [
        given(name, f"header, column {number}", "rename the column")
        for number, name in enumerate(map(texts.written, names), 1)
    ]
    if twice := [name for name in found if name and found.count(name) > 1]:
        raise no(f"two columns are called {twice[0]!r}", "rename or remove one of them")
    return found


def parquet(path: Path, convert: Callable[[pa.Table], Any]) -> Any:
    """`convert` of the table in a parquet file, its dictionaries written out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wrong = (OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError)
    try:
        found = pq.read_metadata(path)
        check_columns(found.num_columns, found.num_rows)
        groups = [found.row_group(i) for i in range(found.num_row_groups)]
        leaves = [group.column(i) for group in groups for i in range(group.num_columns)]
        check_size(sum(leaf.total_uncompressed_size for leaf in leaves))
        check_columns(1, sum(leaf.num_values for leaf in leaves))
        named = {leaf.path_in_schema for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"}
        file = pq.ParquetFile(path, read_dictionary=sorted(named), page_checksum_verification=True)
        table = file.read()
        table.validate(full=True)
        check_size(sum(map(_written_out, table.columns)))
        columns = [
            column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
            for column in table.columns
        ]
        return convert(pa.table(columns, names=column_names(table.column_names)))
    except (pa.ArrowException, *wrong) as error:
        why = texts.short(str(error) or type(error).__name__, 160).rstrip(".")
        hint = "write it again, or give it the extension of its format"
        raise no(f"not a whole parquet file: {why}", hint) from error


def _written_out(column: pa.ChunkedArray) -> int:
    """Bytes of a column when every row has its own text, however often one repeats."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type) or pa.types.is_primitive(column.type.value_type):
        return column.nbytes
    lengths = (pc.binary_length(part.dictionary).take(part.indices) for part in column.chunks)
    return sum(pc.sum(length).as_py() or 0 for length in lengths)


# -- rows


def load_sheet(path: Path) -> pd.DataFrame:
    """The cells of a table, indexed by row number; of CSV as text, "" if empty, else as stored.

    Blank rows and columns without a name are left out. Raises: CrystalError for what is no table,
    or has no row, and as `rows` does.
    """
    if path.is_dir():
        raise no("this is a folder, not a table", "name one file in it")
    if (kind := path.suffix.lower()) not in FORMATS:
        what = f"a table with the extension {path.suffix!r} cannot be read"
        raise no(what, f"save it as one of {', '.join(FORMATS)}")
    if not path.exists():
        raise no("there is no such table", "check the path")
    if kind == ".parquet":
        # whole numbers stay whole beside empty cells: as floats, large ones would be one name
        how = {"ignore_metadata": True, "integer_object_nulls": True}
        sheet = parquet(path, lambda table: table.to_pandas(**how))
        sheet.index = pd.RangeIndex(1, len(sheet) + 1)
    else:
        found, read = rows(path), [pd.DataFrame()]
        while part := dict(islice(found, 100_000)):  # one object a row would be too much memory
            read.append(pd.DataFrame(list(part.values()), index=list(part), dtype=object))
            check_columns(len(set().union(*read)), sum(map(len, read)))
        sheet = pd.concat(read)
    sheet = sheet.drop(columns="", errors="ignore")
    if sheet.empty:
        raise no("the table has no rows", "write a header, and one row per answer below it")
    return sheet


def rows(path: Path) -> Iterator[tuple[int, dict]]:
    """Number and cells of every row that is not blank.

    In CSV an empty cell is empty text, and NA is the text NA. Raises: CrystalError for a file that
    is not of its kind or not UTF-8, hostile or twin columns, a row with too many cells or too few.
    """
    if (kind := path.suffix.lower()) == ".parquet":
        yield from enumerate(parquet(path, lambda table: table.to_pylist()), 1)
        return
    with explained("the table cannot be read", path):
        check_size(path.stat().st_size)
        data = path.read_bytes()
    if kind != ".jsonl":
        yield from _csv(decoded(data, path), "\t" if kind == ".tsv" else ",")
        return
    names: dict[tuple, list[str]] = {}
    for number, row in json_lines(io.BytesIO(data), path):
        if (keys := tuple(row)) not in names:
            names[keys] = column_names(keys)
        yield number, dict(zip(names[keys], row.values()))


def _csv(text: str, separator: str) -> Iterator[tuple[int, dict]]:
    alone = next(c for c in ("\r", *map(chr, range(0xFDD0, 0xFDF0))) if c not in text)
    if "\n" in text:  # else csv ends a line at a lone return, which is part of its cell
        text = re.sub("\r(?!\n)", alone, text)
    number, names, lines = 0, [], io.StringIO(text, newline="")
    try:
        for number, cells in enumerate(csv.reader(lines, delimiter=separator, strict=True), 1):
            cells = [texts.uncell(cell.replace(alone, "\r")) for cell in cells]
            if cells and not names:
                if len(cells) == 1 and (other := re.search(r"[;,\t|]", cells[0])):
                    what = f"the header is one cell, {cells[0]!r:.60}: its columns seem to be"
                    hint = f"write {separator!r} between"
                    raise no(f"{what} separated by {other[0]!r}", hint, row=number)
                names = column_names(cells)
            elif any(cells):
                if len(cells) != len(names):
                    what = f"the row has {len(cells)} cells, the header {len(names)}"
                    hint = "write as many, and put quotes around a cell that holds the separator"
                    raise no(what, hint, row=number)
                yield number, dict(zip(names, cells))
    except csv.Error as error:
        hint = 'close every quote, and write "" for a quote inside a quoted cell'
        raise no(f"not CSV: {error}", hint, row=number + 1) from error


def decoded(data: bytes, path: Path) -> str:
    """Bytes of a file as text."""
    for begins, (what, hint) in PACKED.items():
        if data.startswith(begins):
            raise no(f"the file is {what}, no text", hint)
    wrong = data[:4].find(0)  # UTF-16 of ASCII letters is valid UTF-8, full of zeros
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = error.start + 3 * data.startswith(BOM)  # the mark is not counted there
    if wrong < 0:
        return text
    encoding = "UTF-16" if 0 in data else "WINDOWS-1252"
    command = f"iconv -f {encoding} -t UTF-8 {quote(str(path))} > {quote('utf8-' + path.name)}"
    raise no(f"the text is not UTF-8 at byte {wrong}", f"{command}, if that is its encoding")


def json_lines(lines: Iterable[bytes], path: Path) -> Iterator[tuple[int, dict]]:
    """Number and object of every line that is not blank."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            with placed(f"line {number}"):
                found = parsed(line, path)
            yield number, found


def parsed(data: bytes, path: Path) -> dict:
    """The object that bytes of a file are in JSON."""
    hint = "write one whole JSON object a line, or copy the file again: it may be cut short"
    found = texts.parse_json(decoded(data, path), "", hint)
    if not isinstance(found, dict):
        raise no(f"JSON, but no object: {texts.shown(found)}", hint)
    return found


# -- columns


def check_header(
    sheet: pd.DataFrame, needed: Sequence[Sequence[str]], names: Sequence[str]
) -> list[str]:
    """A note on the columns that are not among `names`; of each group of `needed` columns one must
    be there, and none misspelt.
    """
    for group in needed:
        if sheet.columns.intersection(group).empty:
            called = " or ".join(group)
            what = f"there is no column {called}; the columns are {some(sheet.columns, 12)}"
            raise no(what, f"rename a column, or add one: {called}")
    spare = sheet.columns.difference(names, sort=False)
    for name in spare:
        if (near := name.strip().lower()) in names and near not in sheet:
            raise no(f"the column {name!r} is not spelled {near!r}", "rename it, or remove it")
    return [f"Columns not used: {some(spare, 12)}."] if len(spare) else []


def words(sheet: pd.DataFrame, column: str) -> pd.Categorical:
    """A column of names, shape (rows,), as `texts.name` writes them, by appearance; nan: empty."""
    cells = sheet[column]
    if cells.dtype == object:  # True is 1 to a dict; pandas would guess at types again
        apart = [str(cell) if isinstance(cell, bool) else cell for cell in cells]
        cells = pd.Series(apart, cells.index, dtype=object)
    try:
        codes, values = pd.factorize(cells)
    except TypeError as error:
        row = next(row for row, cell in cells.items() if not isinstance(cell, Hashable))
        what = "the cell is a list or an object, not a name"
        raise no(what, "write one name in each cell", column, row) from error
    found = []
    for code, value in enumerate(values):
        try:
            if isinstance(value, bytes):
                raise ValueError(f"the cell is bytes, {texts.shown(value)}, not text")
            found.append(texts.name(texts.written(value)))
        except ValueError as error:
            row = sheet.index[np.argmax(codes == code)]
            raise no(str(error), "write the name without it", column, row) from error
    names = pd.Index([name for name in dict.fromkeys(found) if name], dtype=object)
    return pd.Categorical.from_codes(names.get_indexer([*found, ""])[codes], names)


def refuse_two_values(rows: pd.DataFrame, column: str, key: list[str]) -> None:
    """Refuse two values of a column under one key."""
    other = ~rows.duplicated([*key, column]) & rows.duplicated(key)
    if other.any():
        second = other.idxmax()
        first = (rows[key] == rows.loc[second, key]).all(axis=1).idxmax()
        what = f"rows {first} and {second} give one prompt two values of {column}"
        raise no(what, f"give every row of a prompt the same {column}", column)


def empty(cells: pd.Series) -> np.ndarray:
    """Which cells hold nothing, shape (rows,)."""
    blank = [isinstance(cell, str) and not cell for cell in cells]
    return cells.isna().to_numpy(bool) | np.array(blank, dtype=bool)


def numbers(sheet: pd.DataFrame, column: str, blank: bool = False) -> np.ndarray:
    """A column of finite numbers from 0 on, shape (rows,); with `blank`, empty is nan."""
    cells, missing = sheet[column], empty(sheet[column])
    if pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells):
        values = cells.to_numpy(float, na_value=np.nan)
    else:
        values = np.array([texts.number(cell) for cell in cells])
    refused = {
        "is empty": missing & (not blank),
        "is not a number": np.isnan(values) & ~missing,
        "is infinite": np.isinf(values),
        "is negative": values < 0,
    }
    for fault, wrong in refused.items():
        if wrong.any():
            row, cell = sheet.index[np.argmax(wrong)], cells.iloc[np.argmax(wrong)]
            cell = texts.shown(cell.tolist() if isinstance(cell, np.ndarray) else cell)
            what = column if fault == "is empty" else f"{column} {cell}"
            hint = f"correct row {row}: a number of 0 or more, with a decimal point"
            raise no(f"the {what} {fault}", hint, column, row)
    return values
