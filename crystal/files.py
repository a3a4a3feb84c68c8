"""Where things lie: the package, the repository. And the one way to write a whole file or none of it.

Knows bytes and folders; knows nothing of what is in them.
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

PACKAGE = Path(__file__).parent


def root() -> Path:
    """The repository: $CRYSTAL_ROOT, else the nearest folder above that holds data/ladders, else the package's parent."""
    if os.environ.get("CRYSTAL_ROOT"):
        return Path(os.environ["CRYSTAL_ROOT"]).resolve()
    here = Path.cwd()
    above = (folder for folder in (here, *here.parents) if (folder / "data" / "ladders").is_dir())
    return next(above, PACKAGE.resolve().parent)


def cache() -> Path:
    """Where what was fetched or converted lies, never in git: $CRYSTAL_CACHE, else .cache in the repository."""
    return Path(os.environ.get("CRYSTAL_CACHE") or root() / ".cache").resolve()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def mend_of(error: OSError, path: Path) -> str:
    """What to do where `path` could not be read or written: what helps depends on why it failed."""
    if error.errno in _FULL:
        return "free disk space"
    if error.errno in FORBIDDEN:
        near = next((at for at in (path, *path.parents) if os.path.lexists(at)), path.parent)
        return f"ls -ld {near}: your user needs permission to read and write there"
    return f"ls -ld {path}: see what is there, move it away if it is in the way"


def write_file(path: Path, blob: bytes) -> None:
    """Write a whole file durably, or leave what was there. Raises: OSError."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb", buffering=0) as file:
            write_all(file.fileno(), blob)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def write_all(handle: int, data: bytes) -> None:
    """Write all of `data`, durably, where the handle stands. Raises: OSError."""
    view = memoryview(data)
    while view:  # a nearly full disk takes a part and says so only at the next call
        view = view[os.write(handle, view):]
    os.fsync(handle)


def sync(folder: Path) -> None:
    """Make the folder's entries (a rename, a new file) durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
