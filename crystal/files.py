"""Where files lie, how they are written whole or not at all, and whether data from one fits."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import CrystalError

PACKAGE = Path(__file__).parent


def root() -> Path:
    """The repository: $CRYSTAL_ROOT, else the nearest folder above that holds data/ladders, else
    the package's parent.
    """
    if os.environ.get("CRYSTAL_ROOT"):
        return Path(os.environ["CRYSTAL_ROOT"]).resolve()
    here = Path.cwd()
    above = (folder for folder in (here, *here.parents) if (folder / "data" / "ladders").is_dir())
    return next(above, PACKAGE.resolve().parent)


def cache() -> Path:
    """What was fetched or converted, never in git: $CRYSTAL_CACHE, else .cache in the root."""
    return Path(os.environ.get("CRYSTAL_CACHE") or root() / ".cache").resolve()


def once(kind: str, rests_on: Iterable[object], check: Callable[[], bool]) -> bool:
    """Whether `check` holds; where it held before, of the same things, it is not asked again."""
    mark = cache() / kind / _key(rests_on)
    if mark.is_file():
        return True
    if not check():
        return False
    with contextlib.suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return True


def kept(
    kind: str, rests_on: Iterable[object], make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Named arrays that `make` gives, from the cache where they were made of the same things.

    A file there that is damaged, or that was made of other things, is made again.
    """
    key = _key(rests_on)
    path = cache() / kind / f"{key}.npz"
    with contextlib.suppress(Exception):  # foreign bytes: numpy and zipfile raise what they like
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
        if bytes(found.pop("sha256")).hex() == _arrays_sha256(key, found):
            return found
    found = make()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        written, seal = io.BytesIO(), bytes.fromhex(_arrays_sha256(key, found))
        np.savez(written, sha256=np.frombuffer(seal, np.uint8), **found)
        write_file(path, written.getvalue())
    return found


def _key(rests_on: Iterable[object]) -> str:
    parts = "\0".join(map(str, rests_on)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(parts).hexdigest()


def _arrays_sha256(key: str, arrays: dict[str, np.ndarray]) -> str:
    seen = hashlib.sha256(key.encode())
    for name, array in sorted(arrays.items()):
        seen.update(f"{name} {array.dtype.str} {array.shape}\0".encode())
        seen.update(np.ascontiguousarray(array).data)
    return seen.hexdigest()


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def hint_of(error: OSError, path: Path) -> str:
    """What to do where `path` could not be read or written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free disk space"
    if error.errno == errno.ENOENT:
        return f"check the path; ls -l {path.parent} shows what is there"
    if error.errno in FORBIDDEN:
        near = next((at for at in (path, *path.parents) if os.path.lexists(at)), path.parent)
        return f"ls -ld {near}: your user needs permission to read and write there"
    return f"ls -ld {path}: see what is there, move it away if it is in the way"


@contextlib.contextmanager
def explained(what: str, path: Path, hint: str | None = None) -> Iterator[None]:
    """Where a file or folder cannot be read or written: `what`, why, and what helps."""
    try:
        yield
    except OSError as error:
        what = f"{what}: {error.strerror or error}"
        if error.filename and str(error.filename) not in (str(path), f"{path}.tmp"):
            what += f": {error.filename}"
        raise CrystalError(what, where=path, hint=hint or hint_of(error, path)) from error


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
        view = view[os.write(handle, view) :]
    os.fsync(handle)


def sync(folder: Path) -> None:
    """Make the folder's entries (a rename, a new file) durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- shapes of data


def sha256(value: object) -> bool:
    """64 hex digits."""
    return isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value))


def number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def count(value: object) -> bool:
    """A whole number from 0 up to what 64 bits hold; True is none."""
    return type(value) is int and 0 <= value < 2**63


def text(value: object) -> bool:
    """A string that a file can hold, without halves of characters."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def flag(value: object) -> bool:
    return isinstance(value, bool)


def anything(value: object) -> bool:
    return True


class Maybe(NamedTuple):
    """The shape of what a mapping may lack."""

    shape: Any


def misfit(value: Any, shape: Any, at: str = "it") -> str | None:
    """What is wrong with `value`, in words that begin with `at`; None where it fits.

    shape: a predicate above; [shape] is a list of such; {name: shape} a mapping with at least these
    names, less those of `Maybe`; {text: shape} one of any names; a tuple of shapes, any of which
    will do.
    """
    if isinstance(shape, Maybe):
        return misfit(value, shape.shape, at)
    if isinstance(shape, tuple):
        found = [misfit(value, one, at) for one in shape]
        return None if None in found else found[-1]
    if isinstance(shape, list):
        kind, fits = "a list", isinstance(value, list)
        parts = ((one, shape[0], f"{at}[{i}]") for i, one in enumerate(value if fits else ()))
    elif isinstance(shape, dict):
        kind, fits = "a mapping of names", isinstance(value, dict) and all(map(text, value))
        inner = dict.fromkeys(value, shape[text]) if fits and text in shape else shape
        for name, one in inner.items() if fits else ():
            if name not in value and not isinstance(one, Maybe):
                return f"{at} lacks {name!r}"
        parts = ((value[n], one, f"{at}.{n}") for n, one in inner.items() if n in value)
    else:
        kind, fits, parts = f"a {shape.__name__}", shape(value), ()
    if not fits:
        return f"{at} must be {kind}, is {shown(value)}"
    return next((wrong for part in parts if (wrong := misfit(*part)) is not None), None)


SHAPES = {  # of the fields of a dataclass, by their annotations
    "str": text,
    "int": count,
    "bool": flag,
    "str | None": text,
    "tuple[str, ...]": [text],
    "dict[str, Any]": {text: anything},
}


def fields(raw: object, kind: type, what: str, **shapes: Any) -> dict:
    """`raw` as keyword arguments of the dataclass `kind`.

    shapes: in place of what the annotation says; None: the field is not written there. Raises:
    ValueError that says what is wrong, or missing.
    """
    if not isinstance(raw, dict):
        raise ValueError(f"{what} must be a mapping of fields, is {type(raw).__name__}")
    every = {one.name: one for one in dataclasses.fields(kind) if shapes.get(one.name, one)}
    for name in raw.keys() - every.keys():
        names = ", ".join(every)
        raise ValueError(f"{what} has an unknown field {name!r:.60}; the fields are {names}")
    for name, field in every.items():
        if name not in raw and field.default is field.default_factory:  # neither is given
            raise ValueError(f"{what} lacks the field {name!r}")
        shape = shapes.get(name) or SHAPES[field.type]
        if name in raw and misfit(raw[name], shape):
            quotes = "; put it in quotes" if shape is text else ""
            is_ = f"of type {field.type}, is {shown(raw[name])}{quotes}"
            raise ValueError(f"{what}: {name} must be {is_}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}


def shown(value: object) -> str:
    huge = isinstance(value, int) and value.bit_length() > 200  # Python cannot write all of them
    return f"{'a huge number' if huge else repr(value):.60} ({type(value).__name__})"
