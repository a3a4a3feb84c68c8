"""The durable log under a ladder's cells: files named by their hash, one line of a manifest each.

    data/<kind>/<ladder>/shards/<first 16 hex of its sha256>.parquet
    data/<kind>/<ladder>/manifest.jsonl

A ladder has one log of each kind: its read-outs (`crystal.keep.store`) and its draws
(`crystal.keep.drawn`).

A file is written, fsynced and renamed before its line is appended and fsynced: a file without a
line was never written, and a manifest that ends in the middle of a line ends at the line before.
Knows bytes, not cells.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ..ask.cells import canonical, digest
from ..errors import CrystalError
from ..files import FORBIDDEN, mend_of, root, sync, write_all, write_file
from ..fits import Hex, count, misfit, number, text

SAMPLES, DRAWS = "samples", "draws"  # kinds: exact read-outs, sampled texts
_TARGET = {SAMPLES: "resample", DRAWS: "draw"}  # what fills a log

_MADE = {"commit": text, "crystal": text, "device": text, "dtype": text, "engine": text,
         "versions": {text: text}}
_PART = {"checkpoint": count, "form": text, "rows": count, "seconds": number, "created": text}
_FILE = {"sha256": Hex(64), "bytes": count, "rows": count, "tasks": [text]}
_SHAPES = {  # of a record
    SAMPLES: _FILE | {"checkpoints": [[text]], "forms": [text],
                      "producers": [_MADE | {"parts": [_PART]}]},
    DRAWS: _FILE | {"model": text, "revision": text,
                    "producer": _MADE | {"seconds": number, "created": text}},
}


def folder_of(ladder: str, kind: str = SAMPLES) -> Path:
    return root() / "data" / kind / ladder


def shard_path(ladder: str, record: dict, kind: str = SAMPLES) -> Path:
    return folder_of(ladder, kind) / "shards" / f"{record['sha256'][:16]}.parquet"


def fill(ladder: str, kind: str = SAMPLES) -> str:
    """The command that adds what is missing."""
    return f"make {_TARGET[kind]} LADDER={ladder}"


def mend(ladder: str, kind: str = SAMPLES) -> str:
    """The command that brings back what is damaged."""
    here = f"data/{kind}/{ladder}"
    return f"git checkout -- {here}, or rm -r {here} and {fill(ladder, kind)}"


def logs(kind: str) -> list[str]:
    """Names of the ladders that have a log of that kind, sorted; described or not."""
    return sorted(path.name for path in (root() / "data" / kind).glob("*") if path.is_dir())


def records(ladder: str, kind: str = SAMPLES) -> list[dict]:
    """One record per shard, in order of writing.

    Raises: CrystalError, naming the line and both hashes, for a line that is not what its checksum
    says, a record of the wrong shape, or a manifest that cannot be read.
    """
    return _parsed(ladder, kind)[0]


def _parsed(ladder: str, kind: str) -> tuple[list[dict], int]:
    """The records, and the length in bytes of their lines; what lies behind is a torn line."""
    path = folder_of(ladder, kind) / "manifest.jsonl"
    found, length = _read(_bytes_of(path, ladder, kind), path, ladder, kind)
    return list(found), length


@lru_cache(maxsize=32)  # a page asks for one manifest hundreds of times
def _read(whole: bytes, path: Path, ladder: str, kind: str) -> tuple[tuple[dict, ...], int]:
    lines = whole.split(b"\n")
    # not splitlines(), which also cuts at \r
    lines = [line + b"\n" for line in lines[:-1]] + lines[-1:]
    if _torn(lines[-1]):
        lines.pop()
    found = [
        _record(line, f"{path}:{number}", ladder, kind) for number, line in enumerate(lines, 1)
    ]
    return tuple(found), sum(map(len, lines))


def _bytes_of(path: Path, ladder: str, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise _unreadable(error, "the manifest", path, ladder, kind) from error


def _unreadable(error: OSError, what: str, path: Path, ladder: str, kind: str) -> CrystalError:
    forbidden = error.errno in FORBIDDEN
    return CrystalError(f"{what} cannot be read: {error.strerror or error}", where=path,
                        mend=mend_of(error, path) if forbidden else mend(ladder, kind))


def _torn(tail: bytes) -> bool:
    """Whether what stands behind the last newline is a write cut short, be it by the newline alone.

    An object with more behind it is no cut but a damaged newline, and must not be dropped in
    silence.
    """
    try:
        end = json.JSONDecoder().raw_decode(tail.decode("ascii"))[1]
    except json.JSONDecodeError:
        return True
    except (ValueError, RecursionError):  # not ASCII, say: our own writing never looks like that
        return False
    return end == len(tail)


def _line(record: dict) -> bytes:
    return (canonical({"checksum": digest(record), **record}) + "\n").encode()


def _record(line: bytes, where: str, ladder: str, kind: str) -> dict:
    """The record a line holds, compared byte for byte with the line it should be."""
    try:
        record = json.loads(line)
        said = record.pop("checksum")
        if line != _line(record):
            what = f"its checksum is {said!r:.80}, its content's {digest(record)}"
        elif (what := _wrong(record, kind)) is None:
            return record
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        found = hashlib.sha256(line).hexdigest()
        what = f"its sha256 is {found} and it holds no checksum of itself: {type(error).__name__}"
    raise CrystalError(f"a manifest line is corrupt: {what}", where=where, mend=mend(ladder, kind))


def _wrong(record: dict, kind: str) -> str | None:
    """What is wrong with the shape of a record whose checksum is right."""
    if (found := misfit(record, _SHAPES[kind], "the record")) or kind == DRAWS:
        return found
    if not all(len(pair) == 2 for pair in record["checkpoints"]):
        return "a checkpoint must be a model and its revision"
    parts = [part for made in record["producers"] for part in made["parts"]]
    if not all(part["checkpoint"] < len(record["checkpoints"]) for part in parts):
        return "a part names a checkpoint that is not in the record"
    return None


def verified(ladder: str, record: dict, kind: str = SAMPLES) -> bytes:
    """The bytes of the shard a record names.

    Raises: CrystalError, naming the file and both hashes, if they are not those that were written.
    """
    path, said = shard_path(ladder, record, kind), record["sha256"]
    try:
        blob = path.read_bytes()
    except OSError as error:
        what = f"a shard that the manifest names by sha256 {said}"
        raise _unreadable(error, what, path, ladder, kind) from error
    if (found := hashlib.sha256(blob).hexdigest()) != said:
        what = f"a shard is corrupt: sha256 {found}, but the manifest says {said}"
        raise CrystalError(what, where=path, mend=mend(ladder, kind))
    return blob


def unlisted(ladder: str, kind: str = SAMPLES) -> tuple[str, ...]:
    """Files under shards/ that no line names, never read: of a killed writer, or of a lost line."""
    listed = {shard_path(ladder, record, kind).name for record in records(ladder, kind)}
    there = (folder_of(ladder, kind) / "shards").glob("*")
    return tuple(sorted(path.name for path in there if path.name not in listed))


@contextlib.contextmanager
def alone(ladder: str, kind: str = SAMPLES) -> Iterator[None]:
    """Hold the ladder against other writers; waits for them.

    The lock is on its folder: no lock file is left behind.
    """
    import fcntl  # here, so that reading works where it does not exist

    folder = folder_of(ladder, kind)
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for left in (folder / "shards").glob("*.tmp"):  # of a killed writer: we hold the lock
            left.unlink()
        yield
    finally:
        os.close(handle)


def refused(error: OSError, what: str, ladder: str, kind: str = SAMPLES) -> CrystalError:
    """The sentence for a shard that the disk did not take."""
    folder = folder_of(ladder, kind)
    mend = mend_of(error, Path(error.filename or folder))
    return CrystalError(f"could not write {what}: {error.strerror or error}; none of them was kept",
                        where=folder, mend=f"{mend}; then go on with {fill(ladder, kind)}")


def write(ladder: str, blob: bytes, facts: dict, kind: str = SAMPLES) -> Path:
    """Keep `blob` for good, with `facts` in its record; call it inside `alone`.

    Raises: OSError if the disk refuses; then nothing has been kept.
    """
    record = {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob), **facts}
    path = shard_path(ladder, record, kind)
    there = path.exists()  # then its line is gone, and it may be all that is left of its cells
    try:
        write_file(path, blob)
        _write_line(folder_of(ladder, kind), _line(record), _parsed(ladder, kind)[1])
    except OSError:
        if not there and path.name in unlisted(ladder, kind):
            path.unlink()
        raise
    return path


def _write_line(folder: Path, line: bytes, length: int) -> None:
    """Append the line at `length`, cutting off a torn one; on failure all is as it was."""
    handle = os.open(folder / "manifest.jsonl", os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        sync(folder)
        os.ftruncate(handle, length)
        os.lseek(handle, length, os.SEEK_SET)
        write_all(handle, line)
    except OSError:
        os.ftruncate(handle, length)
        raise
    finally:
        os.close(handle)
