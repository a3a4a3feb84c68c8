"""Table files in, columns of words and numbers out: CSV, TSV, JSON lines, parquet. Knows nothing of what the columns mean.

Every complaint names file, row and column. A row is counted as a reader of the file counts it: in CSV the header is row 1,
in JSON lines a row is its line, in parquet the first row is 1.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

import numpy as np
import pandas as pd

from .. import texts
from ..errors import CrystalError
from . import packed

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")  # the first three also with .gz behind
SEPARATORS = {".csv": ",", ".tsv": "\t"}


def format_of(path: Path) -> str:
    """The file's format, one of FORMATS. Raises: CrystalError for any other extension."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS or (suffix == ".parquet" and path.suffix == ".gz"):
        raise CrystalError(f"a table with the extension {path.suffix!r} cannot be read", where=path,
                           mend=f"save it as one of {', '.join(FORMATS)}, or .csv.gz")
    return suffix


def stem(path: Path) -> str:
    """The file's name without its extensions: answers.csv.gz -> answers."""
    return Path(path.name.removesuffix(".gz")).stem


def load_sheet(path: Path) -> pd.DataFrame:
    """The cells of a table file, indexed by row number; cells of CSV are text, "" if empty, others are as stored.

    Blank rows and columns without a name are left out.
    Raises: CrystalError for a file that is missing, empty, a folder, not of its format or not UTF-8 (a byte order mark is
    fine), a row with too many cells, a broken line of JSON, a column name that is used twice, or no row at all.
    """
    if path.is_dir():
        raise CrystalError("this is a folder, not a table", where=path, mend="name one file in it")
    kind = format_of(path)
    if kind == ".parquet":
        sheet = _parquet(path)
    else:
        text = _text(path, _bytes(path))
        if not text.strip():
            raise CrystalError("the table is empty", where=path, mend="write a header and one row per answer")
        sheet = _lines(path, text) if kind == ".jsonl" else _delimited(path, text, SEPARATORS[kind])
    if sheet.empty:
        raise CrystalError("the table has no rows", where=path, mend="write one row per answer below the header")
    return sheet.set_axis(column_names(path, sheet.columns), axis=1)


def column_names(path: Path, names: Sequence[object]) -> list[str]:
    """Names of columns as they are compared. Raises: CrystalError for a hostile one, or twins."""
    packed.check_columns(len(names), 0, path)
    found = []
    for number, name in enumerate(names, 1):
        try:
            found.append(texts.name(texts.written(name)))
        except ValueError as error:
            raise CrystalError(str(error), where=f"{path}, header, column {number}",
                               mend="rename the column") from error
    if twice := [name for name in found if name and found.count(name) > 1]:
        raise CrystalError(
            f"two columns are called {twice[0]!r}", where=path, mend="rename or remove one of them"
        )
    return found


def at(path: Path, row: object = None, column: str | None = None) -> str:
    """The place of a complaint, in words."""
    parts = [str(path), *([f"row {row}"] if row is not None else []), *([f"column {column}"] if column else [])]
    return ", ".join(parts)


def words(sheet: pd.DataFrame, column: str, path: Path) -> tuple[np.ndarray, list[str]]:
    """A column of names: codes, shape (rows,), and the distinct names they index, in order of appearance; -1 is an empty cell.

    Names are compared as `texts.name` writes them. Raises: CrystalError for a cell that holds a
    list or bytes, or a name that holds a control character.
    """
    try:
        codes, values = pd.factorize(sheet[column])
    except TypeError as error:
        row = next(row for row, cell in sheet[column].items() if not _hashable(cell))
        raise CrystalError("the cell is a list or an object, not a name", where=at(path, row, column),
                           mend="write one row per option, each with one name") from error
    found = []
    for code, value in enumerate(values):
        try:
            if isinstance(value, bytes):
                raise ValueError(f"the cell is bytes, {texts.shown(value)}, not text")
            found.append(texts.name(texts.written(value)))
        except ValueError as error:
            row = sheet.index[np.argmax(codes == code)]
            raise CrystalError(
                str(error), where=at(path, row, column), mend="write the name without it"
            ) from error
    merged, names = pd.factorize(np.array(found or [""], dtype=object))
    if "" in (names := names.tolist()):
        blank = names.index("")
        order = np.array([-1 if i == blank else i - (i > blank) for i in range(len(names))])
        merged, names = order[merged], [name for name in names if name]
    return np.append(merged, -1)[codes], names  # code -1 takes the last one, -1


def _hashable(cell: object) -> bool:
    try:
        hash(cell)
    except TypeError:
        return False
    return True


def empty(cells: pd.Series) -> np.ndarray:
    """Which cells hold nothing, shape (rows,)."""
    try:
        return (cells.isna() | (cells == "")).to_numpy(bool)
    except ValueError:  # a list of parquet among the cells has no one answer
        return cells.map(lambda cell: cell is None or (isinstance(cell, str) and not cell)).to_numpy(bool)


def numbers(sheet: pd.DataFrame, column: str, path: Path, blank: bool = False) -> np.ndarray:
    """A column of finite numbers that are not negative, shape (rows,); with `blank`, empty cells are nan.

    Raises: CrystalError naming the first cell that is not one.
    """
    cells, missing = sheet[column], empty(sheet[column])
    if pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells):
        values = cells.to_numpy(float, na_value=np.nan)
    else:
        values = np.array([texts.number(cell) for cell in cells])

    def refuse(wrong: np.ndarray, what: str) -> None:
        if wrong.any():
            first = np.argmax(wrong)
            row, cell = sheet.index[first], cells.iloc[first]
            shown = (
                "" if missing[first] else f" {texts.shown(getattr(cell, 'tolist', lambda: cell)())}"
            )
            raise CrystalError(f"the {column}{shown} {what}", where=at(path, row, column),
                               mend=f"correct row {row}: a number of 0 or more, with a decimal point")

    refuse(missing & (not blank), "is empty")
    refuse(np.isnan(values) & ~missing, "is not a number")
    refuse(np.isinf(values), "is infinite")
    refuse(values < 0, "is negative")
    return values


def _bytes(path: Path) -> bytes:
    try:
        return packed.gunzip(path) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError as error:
        raise CrystalError("there is no such table", where=path, mend="check the path") from error
    except OSError as error:
        raise CrystalError(f"the table cannot be read: {error.strerror}", where=path, mend=f"ls -l {path}") from error


def _text(path: Path, data: bytes) -> str:
    """The file as text. UTF-16 without non-ASCII letters is valid UTF-8 full of zero bytes, hence the search for them."""
    zero = 0 in data
    try:
        text = data.decode("utf-8-sig")
        offset = data.index(0) if zero else None
    except UnicodeDecodeError as error:
        offset = error.start + 3 * data.startswith(b"\xef\xbb\xbf")  # the mark is not counted there
    if offset is not None:
        other = "UTF-16" if zero else "WINDOWS-1252"
        command = f"iconv -f {other} -t UTF-8 {quote(str(path))} > {quote('utf8-' + path.name)}"
        raise CrystalError(f"the text is not UTF-8 at byte {offset}", where=path,
                           mend=f"{command}, if that is its encoding")
    return text


def _delimited(path: Path, text: str, separator: str) -> pd.DataFrame:
    if "\n" not in text:  # lines that end as they once did on a Mac
        text = text.replace("\r", "\n")
    body = text.lstrip("\r\n")
    above = text[: len(text) - len(body)].count("\n")  # blank lines before the header
    _check_header(path, body, separator, above)
    try:
        cells = pd.read_csv(io.StringIO(body), sep=separator, header=None, dtype=str, na_filter=False, skip_blank_lines=False,
                            low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise _torn(path, str(error), above) from error
    cells.index += 1 + above
    cells = cells.apply(_uncelled)
    names = [name.strip() for name in cells.iloc[0]]
    named = [i for i, name in enumerate(names) if name]
    sheet = cells.iloc[1:, named].set_axis([names[i] for i in named], axis=1)
    return sheet[(sheet != "").any(axis=1)]


def _check_header(path: Path, body: str, separator: str, above: int) -> None:
    """Refuse a header that is one cell because of its separators, or far too many."""
    try:
        names = [name.strip() for name in next(csv.reader(io.StringIO(body), delimiter=separator))]
    except (csv.Error, StopIteration) as error:
        raise _torn(path, str(error), above) from error
    packed.check_columns(len(names), 0, path)
    others = [mark for mark in (";", ",", "\t", "|") if mark in names[0]] if len(names) == 1 else []
    if others:
        raise CrystalError(
            f"the header is one cell, {names[0]!r:.60}: "
            f"its columns seem to be separated by {others[0]!r}",
            where=at(path, 1 + above),
            mend=f"separate them by {separator!r}",
        )


def _uncelled(cells: pd.Series) -> pd.Series:
    """A column without the apostrophes that keep a spreadsheet from computing its cells."""
    marked = cells.str.startswith("'")
    return cells.where(~marked, cells[marked].map(texts.uncell)) if marked.any() else cells


def _torn(path: Path, said: str, above: int) -> CrystalError:
    """What pandas says of a row it cannot split, as a sentence."""
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", said):
        wanted, line, saw = map(int, found.groups())
        return CrystalError(f"row {line + above} has {saw} cells, the header {wanted}", where=path,
                            mend="put quotes around a cell that holds the separator")
    row = re.search(r"EOF inside string starting at row (\d+)", said)
    where = f" in row {int(row[1]) + 1 + above}" if row else ""
    return CrystalError(f"a quote{where} is never closed" if row else f"not a table: {said.strip()}", where=path,
                        mend='close it, or write "" for a quote inside a quoted cell')


def _lines(path: Path, text: str) -> pd.DataFrame:
    numbered = [(number, line) for number, line in enumerate(map(str.strip, text.split("\n")), 1) if line]
    rows, lines = zip(*numbered)
    try:  # all at once is much faster; the line end in between keeps a string from running over it
        objects = texts.parse_json("[" + ",\n".join(lines) + "]", path, "")
        whole = len(objects) == len(lines) and all(line[0] == "{" and line[-1] == "}" for line in lines)
    except CrystalError:
        whole = False
    if not whole:
        objects = [_object(path, number, line) for number, line in numbered]
    names = list(dict.fromkeys(name for one in objects for name in one))
    packed.check_columns(len(names), len(objects), path)
    column_names(path, names)  # pandas takes no half characters
    return pd.DataFrame(objects, index=pd.Index(rows), dtype=object)


def _object(path: Path, number: int, line: str) -> dict:
    mend = "write one whole JSON object a line"
    try:
        found = texts.parse_json(line, path, mend)
    except CrystalError as error:
        raise CrystalError(
            f"line {number} is not JSON: {error.what.removeprefix('broken JSON: ')}",
            where=path,
            mend=mend,
        ) from error
    if not isinstance(found, dict):
        raise CrystalError(f"line {number} is no JSON object", where=path, mend="write one JSON object a line, and no list")
    return found


def _parquet(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise CrystalError("there is no such table", where=path, mend="check the path")
    frame = packed.parquet(
        path,
        lambda table: table.rename_columns(column_names(path, table.column_names)).to_pandas(
            ignore_metadata=True
        ),
        "write it again, or give it the extension of its format",
    )
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return frame
