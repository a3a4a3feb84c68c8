"""The durable log under a ladder's cells: files named by their hash, a line of a manifest each.

    data/<kind>/<ladder>/shards/<first 16 hex of its sha256>.parquet
    data/<kind>/<ladder>/manifest.jsonl

A ladder has a log of each kind: exact read-outs, and draws.
A file is written, fsynced and renamed before its line is appended and fsynced: a file without a
line was never written, and a manifest that ends in the middle of a line ends at the line before.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import __version__
from ..ask.cells import canonical, digest
from ..errors import CrystalError
from ..files import FORBIDDEN, hint_of, root, sync, write_all, write_file

SAMPLES, DRAWS = "samples", "draws"  # kinds: exact read-outs, sampled texts
_ONCE = dict.fromkeys(("producer", "producers"), "provenance")  # names in older lines


def folder_of(ladder: str, kind: str = SAMPLES) -> Path:
    return root() / "data" / kind / ladder


def shard_path(ladder: str, record: dict, kind: str = SAMPLES) -> Path:
    return folder_of(ladder, kind) / "shards" / f"{record['sha256'][:16]}.parquet"


def fill(ladder: str, kind: str = SAMPLES) -> str:
    """The command that adds what is missing."""
    return f"make {'draw' if kind == DRAWS else 'resample'} LADDER={ladder}"


def hint(ladder: str, kind: str = SAMPLES) -> str:
    """The command that brings back what is damaged."""
    here = f"data/{kind}/{ladder}"
    return f"git checkout -- {here}, or rm -r {here} and {fill(ladder, kind)}"


def logs(kind: str) -> list[str]:
    """Names of the ladders that have a log of that kind, described or not."""
    return sorted(path.name for path in (root() / "data" / kind).glob("*") if path.is_dir())


# -- read


def records(ladder: str, kind: str = SAMPLES) -> list[dict]:
    """One record per shard, in order of writing.

    Raises: CrystalError for a manifest that cannot be read, or a line other than its checksum says.
    """
    return _parsed(ladder, kind)[0]


def _parsed(ladder: str, kind: str) -> tuple[list[dict], int]:
    """The records, and how many bytes their lines are: a torn line may lie behind."""
    path, back = folder_of(ladder, kind) / "manifest.jsonl", hint(ladder, kind)
    found, length = _lines(_bytes_of("the manifest", path, back, absent=b""), path, back)
    return list(found), length


def _bytes_of(what: str, path: Path, back: str, absent: bytes | None = None) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        if absent is not None and isinstance(error, FileNotFoundError):
            return absent
        back = hint_of(error, path) if error.errno in FORBIDDEN else back
        what = f"{what} cannot be read: {error.strerror or error}"
        raise CrystalError(what, where=path, hint=back) from error


@lru_cache(maxsize=32)  # a page asks for one manifest hundreds of times
def _lines(whole: bytes, path: Path, back: str) -> tuple[tuple[dict, ...], int]:
    *lines, tail = whole.split(b"\n")  # not splitlines(), which also cuts at \r
    lines = [line + b"\n" for line in lines]
    if not _torn(tail):
        lines.append(tail)
    found = tuple(_record(line, f"{path}:{i}", back) for i, line in enumerate(lines, 1))
    return found, sum(map(len, lines))


def _torn(tail: bytes) -> bool:
    """Whether a write was cut short. An object with more behind it is a damaged newline."""
    try:
        return json.JSONDecoder().raw_decode(tail.decode("ascii"))[1] == len(tail)
    except json.JSONDecodeError:
        return True
    except (ValueError, RecursionError):  # not ASCII, say: our own writing never looks like that
        return False


def _line(record: dict) -> bytes:
    return (canonical({"checksum": digest(record), **record}) + "\n").encode()


def _record(line: bytes, where: str, back: str) -> dict:
    """The record of a line, if that is, byte for byte, the line it should be."""
    try:
        record = json.loads(line)
        said = record.pop("checksum")
        if line == _line(record):
            return {_ONCE.get(name, name): value for name, value in record.items()}
        what = f"its checksum is {said!r:.80}, its content's {digest(record)}"
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        found = hashlib.sha256(line).hexdigest()
        what = f"its sha256 is {found} and it holds no checksum of itself: {type(error).__name__}"
    raise CrystalError(f"a manifest line is corrupt: {what}", where=where, hint=back)


def verified(ladder: str, record: dict, kind: str = SAMPLES) -> bytes:
    """The bytes of the shard a record names. Raises: CrystalError if they are other ones."""
    path, wanted, back = shard_path(ladder, record, kind), record["sha256"], hint(ladder, kind)
    blob = _bytes_of(f"a shard that the manifest names by sha256 {wanted}", path, back)
    if (found := hashlib.sha256(blob).hexdigest()) != wanted:
        what = f"a shard is corrupt: sha256 {found}, but the manifest says {wanted}"
        raise CrystalError(what, where=path, hint=back)
    return blob


def unlisted(ladder: str, kind: str = SAMPLES) -> tuple[str, ...]:
    """Files under shards/ that no line names: of a killed writer, or of a lost line."""
    listed = {shard_path(ladder, record, kind).name for record in records(ladder, kind)}
    there = (folder_of(ladder, kind) / "shards").glob("*")
    return tuple(sorted(path.name for path in there if path.name not in listed))


# -- write


@contextlib.contextmanager
def alone(ladder: str, kind: str = SAMPLES) -> Iterator[None]:
    """Hold the ladder against other writers; waits for them. No lock file is left behind."""
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


def write(ladder: str, blob: bytes, facts: dict, kind: str = SAMPLES) -> Path:
    """Keep `blob`, with `facts` in its record; inside `alone`. Raises: OSError; nothing is kept."""
    record = {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob), **facts}
    path = shard_path(ladder, record, kind)
    there = path.exists()  # then its line is gone, and it may be all that is left of its cells
    try:
        write_file(path, blob)
        _append(folder_of(ladder, kind), _line(record), _parsed(ladder, kind)[1])
    except OSError:
        if not there and path.name in unlisted(ladder, kind):
            path.unlink()
        raise
    return path


def _append(folder: Path, line: bytes, length: int) -> None:
    """Append the line at `length`, without a torn one; on failure all is as it was."""
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


def write_new(
    ladder: str, kind: str, blob: bytes, facts: dict, new: list[str], known: Callable[[], set[str]]
) -> Path:
    """Keep a shard of cells with the keys `new`; known: those that are there.

    Raises: CrystalError if a cell would be there twice, or if the disk refuses; nothing is kept.
    """
    folder = folder_of(ladder, kind)
    try:
        with alone(ladder, kind):
            twice = known().intersection(new) or {key for key, n in Counter(new).items() if n > 1}
            if twice:
                what = f"{len(twice)} of {len(new)} cells would be there twice, first {min(twice)}"
                back = f"another process wrote them; go on with {fill(ladder, kind)}"
                raise CrystalError(what, where=folder, hint=back)
            return write(ladder, blob, facts, kind)
    except OSError as error:
        why = error.strerror or error
        what = f"could not write {len(new)} cells: {why}; none of them was kept"
        back = hint_of(error, Path(error.filename or folder))
        back = f"{back}; then go on with {fill(ladder, kind)}"
        raise CrystalError(what, where=folder, hint=back) from error


# -- who made a shard


def provenance(*, seconds: float, **how: Any) -> dict:
    """A shard's record of its making. how: engine, device, dtype; versions, if not ours."""
    made = {"crystal": __version__, "commit": _commit(), "versions": versions()} | how
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return made | {"seconds": round(seconds, 3), "created": created}


def versions() -> dict[str, str]:
    """Of the packages a read-out depends on."""
    found = dict.fromkeys(("torch", "transformers", "numpy"), "absent")
    for name in found:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _commit() -> str:
    """With -dirty where tracked files differ from the commit; "unknown" outside a repository."""
    git = ["git", "-C", root(), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError):
        done = subprocess.run(git, capture_output=True, text=True)
        return done.stdout.strip() or "unknown"
    return "unknown"


# -- what a look through a whole log found


@dataclass(frozen=True)
class Report:
    """What `verify` found in a log."""

    ladder: str
    kind: str
    shards: int
    cells: int
    bytes: int
    lacking: list[str]  # cells that the ladder's description asks for, in words
    shipped: bool  # whether all of them have to be there
    unlisted: tuple[str, ...]  # files no manifest line names, never read
    problems: tuple[str, ...]  # sentences

    @property
    def missing(self) -> int:
        """How many cells are lacking."""
        return len(self.lacking)

    @property
    def faults(self) -> int:
        """Problems, and one more where cells are missing that have to be there."""
        return len(self.problems) + bool(self.missing and self.shipped)

    def __str__(self) -> str:
        of = f"{self.ladder}, draws" if self.kind == DRAWS else self.ladder
        size = f"{self.cells} cells in {self.shards} shards ({self.bytes / 2**20:.1f} MiB)"
        lines = [f"{of}: {size}, {self.missing} missing"]
        log, again = f"data/{self.kind}/{self.ladder}", fill(self.ladder, self.kind)
        if self.missing and self.shipped:
            lines.append(
                f"{self.missing} cells that the description of {self.ladder} asks for are missing, "
                f"first {self.lacking[0]}. Hint: git checkout -- {log}, or {again}"
            )
        if self.unlisted:
            then = "left by a write that was cut short; safe to delete"
            if self.missing or self.problems:
                back = f"git checkout -- {log}/manifest.jsonl" if self.shipped else again
                then = f"they may hold the missing cells, so keep them. Hint: {back}"
            names = ", ".join(self.unlisted)
            lines.append(f"{len(self.unlisted)} unlisted files ({names}): {then}")
        return "\n".join([*lines, *self.problems])
