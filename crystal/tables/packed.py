"""Packed files of strangers, unpacked within stated bounds: gzip, parquet, members of archives.

A few bytes can claim, or unpack to, more than any memory holds. Sizes are looked at first. Knows
nothing of what the files say.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import CrystalError
from ..texts import short

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
LARGEST = 2**29  # bytes, unpacked
CELLS = 10**8  # of a table
COLUMNS = 1000


def check_size(size: int, where: object, most: int = LARGEST) -> None:
    """Raises: CrystalError if something of `size` bytes would unpack beyond `most`."""
    if not 0 <= size <= most:
        raise CrystalError(
            f"it unpacks to more than {most >> 20} MiB",
            where=where,
            mend="split it into smaller files, or look at what it holds",
        )


def check_columns(columns: int, rows: int, path: Path) -> None:
    """Raises: CrystalError for more columns than COLUMNS, or more cells than CELLS."""
    if columns > COLUMNS or columns * rows > CELLS:
        said = f"more than {COLUMNS} columns" if columns > COLUMNS else f"more than {CELLS} cells"
        raise CrystalError(
            f"the table has {said}",
            where=path,
            mend="write the columns that are needed, one answer a row",
        )


def gunzip(path: Path) -> bytes:
    """What a gzip file holds, LARGEST bytes at most. Raises: CrystalError, OSError."""
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CrystalError(
            f"not a whole gzip file: {error}", where=path, mend="write it again, or leave out .gz"
        ) from error
    check_size(len(data), path)
    return data


def parquet(path: Path, convert: Callable[[pa.Table], T], mend: str) -> T:
    """`convert` of the table in a parquet file, its dictionaries written out.

    Raises: CrystalError, with `mend`, for a file that is not whole or holds more than its rows
    and columns may.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_metadata(path)
        check_columns(found.num_columns, found.num_rows, path)
        groups = [found.row_group(i) for i in range(found.num_row_groups)]
        leaves = [group.column(i) for group in groups for i in range(group.num_columns)]
        check_size(sum(leaf.total_uncompressed_size for leaf in leaves), path)
        check_columns(1, sum(leaf.num_values for leaf in leaves), path)
        texts = {leaf.path_in_schema for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"}
        table = pq.ParquetFile(
            path, read_dictionary=sorted(texts), page_checksum_verification=True
        ).read()
        table.validate(full=True)
        check_size(sum(map(_written_out, table.columns)), path)
        columns = [
            column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
            for column in table.columns
        ]
        return convert(pa.table(columns, names=table.column_names))
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        MemoryError,
    ) as error:
        said = short(str(error) or type(error).__name__, 160).rstrip(".")
        raise CrystalError(f"not a whole parquet file: {said}", where=path, mend=mend) from error


def _written_out(column: pa.ChunkedArray) -> int:
    """Bytes of a column when every row has its own text, however often one repeats."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type) or pa.types.is_primitive(column.type.value_type):
        return column.nbytes
    return sum(
        pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
        for chunk in column.chunks
    )
