"""The durable log under a ladder's cells: files named by their hash, and a manifest with one line for each.

    data/<kind>/<ladder>/shards/<first 16 hex of its sha256>.parquet
    data/<kind>/<ladder>/manifest.jsonl

A ladder has one log of each kind: its read-outs (`crystal.keep.store`) and its draws (`crystal.keep.drawn`).

A file is written, fsynced and renamed before its line is appended and fsynced: a file without a line was never
written, and a manifest that ends in the middle of a line ends at the line before. Knows bytes, not cells.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ..ask.cells import canonical, digest
from ..errors import CrystalError
from ..files import root, sync, write_all, write_file

SAMPLES, DRAWS = "samples", "draws"  # kinds: exact read-outs, sampled texts
_TARGET = {SAMPLES: "resample", DRAWS: "draw"}  # what fills a log


def folder_of(ladder: str, kind: str = SAMPLES) -> Path:
    return root() / "data" / kind / ladder


def shard_path(ladder: str, record: dict, kind: str = SAMPLES) -> Path:
    return folder_of(ladder, kind) / "shards" / f"{record['sha256'][:16]}.parquet"


def fill(ladder: str, kind: str = SAMPLES) -> str:
    """The command that adds what is missing."""
    return f"make {_TARGET[kind]} LADDER={ladder}"


def mend(ladder: str, kind: str = SAMPLES) -> str:
    """The command that brings back what is damaged."""
    return f"git checkout -- data/{kind}/{ladder}, or rm -r data/{kind}/{ladder} and {fill(ladder, kind)}"


def records(ladder: str, kind: str = SAMPLES) -> list[dict]:
    """One record per shard, in order of writing.

    Raises: CrystalError, naming the line and both hashes, for a line that is not what its checksum says.
    """
    return _parsed(ladder, kind)[0]


def _parsed(ladder: str, kind: str) -> tuple[list[dict], int]:
    """The records, and the length in bytes of their lines; what lies behind is a torn line."""
    path = folder_of(ladder, kind) / "manifest.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    lines = [line + b"\n" for line in lines[:-1]] + lines[-1:]  # not splitlines(), which also cuts at \r
    if _torn(lines[-1]):
        lines.pop()
    return [_record(line, f"{path}:{number}", mend(ladder, kind)) for number, line in enumerate(lines, 1)], sum(map(len, lines))


def _torn(tail: bytes) -> bool:
    """Whether what stands behind the last newline is a write cut short, be it by the newline alone.

    An object with more behind it is no cut but a damaged newline, and must not be dropped in silence.
    """
    try:
        end = json.JSONDecoder().raw_decode(tail.decode("ascii"))[1]
    except json.JSONDecodeError:
        return True
    except ValueError:  # not ASCII, say: our own writing never looks like that, so this is damage
        return False
    return end == len(tail)


def _line(record: dict) -> bytes:
    return (canonical({"checksum": digest(record), **record}) + "\n").encode()


def _record(line: bytes, where: str, mend: str) -> dict:
    """The record a line holds, compared byte for byte with the line it should be, so that any flip shows."""
    try:
        record = json.loads(line)
        said = record.pop("checksum")
        if line == _line(record):
            return record
        what = f"its checksum is {said}, its content's {digest(record)}"
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        what = f"its sha256 is {hashlib.sha256(line).hexdigest()} and it holds no checksum of itself: {type(error).__name__}"
    raise CrystalError(f"a manifest line is corrupt: {what}", where=where, mend=mend)


def verified(ladder: str, record: dict, kind: str = SAMPLES) -> bytes:
    """The bytes of the shard a record names.

    Raises: CrystalError, naming the file and both hashes, if they are not those that were written.
    """
    path = shard_path(ladder, record, kind)
    try:
        blob = path.read_bytes()
    except OSError as error:
        what = f"a shard cannot be read: {error.strerror}; the manifest says sha256 {record['sha256']}"
        raise CrystalError(what, where=path, mend=mend(ladder, kind)) from error
    if (found := hashlib.sha256(blob).hexdigest()) != record["sha256"]:
        what = f"a shard is corrupt: sha256 {found}, but the manifest says {record['sha256']}"
        raise CrystalError(what, where=path, mend=mend(ladder, kind))
    return blob


def unlisted(ladder: str, kind: str = SAMPLES) -> tuple[str, ...]:
    """Files under shards/ that no line names: left by a kill, never read, safe to delete."""
    listed = {shard_path(ladder, record, kind).name for record in records(ladder, kind)}
    return tuple(sorted(path.name for path in (folder_of(ladder, kind) / "shards").glob("*") if path.name not in listed))


@contextlib.contextmanager
def alone(ladder: str, kind: str = SAMPLES) -> Iterator[None]:
    """Hold the ladder against other writers; waits for them. The lock is on its folder: no lock file is left behind."""
    import fcntl  # here, so that reading works where it does not exist

    folder = folder_of(ladder, kind)
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for left in (folder / "shards").glob("*.tmp"):  # of a killed writer: we hold the lock, so nobody is writing it
            left.unlink()
        yield
    finally:
        os.close(handle)


def write(ladder: str, blob: bytes, facts: dict, kind: str = SAMPLES) -> Path:
    """Keep `blob` for good, with `facts` in its record; call it inside `alone`.

    Raises: OSError if the disk refuses; then nothing has been kept.
    """
    record = {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob), **facts}
    path = shard_path(ladder, record, kind)
    try:
        write_file(path, blob)
        _write_line(folder_of(ladder, kind), _line(record), _parsed(ladder, kind)[1])
    except OSError:
        if path.name in unlisted(ladder, kind):
            path.unlink()
        raise
    return path


def _write_line(folder: Path, line: bytes, length: int) -> None:
    """Append the line at `length`, cutting off a torn one; on failure leave the manifest as it was."""
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
