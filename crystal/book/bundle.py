"""The book, its data and its code as one archive, ready to be deposited.

    html/                  the book; html/index.html opens offline
    provenance/pages.csv   what each page was made of
    SHA256SUMS             of every other file (sha256sum -c)
    data/, ...             the repository, without what is the reader's own

The same files give the same bytes. Knows nothing of how the book was made.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .. import __version__
from ..errors import CrystalError
from ..files import mend_of, root, sync
from ..keep import sums
from ..keep.manifest import DRAWS, SAMPLES, logs, records, shard_path
from .binding import index
from .pages import OWN

CODE = (
    *("CHANGELOG.md", "CITATION.cff", "LICENSE*", "Makefile", "README.md", "*.toml", "*.yml"),
    *(".binder/*", "book/**/*", "crystal/**/*", "notebooks/*.ipynb", "requirements/*"),
    *("scripts/*", "tests/**/*"),
)
NAME = f"crystal-{__version__}"
BEGINNING = (1980, 1, 1, 0, 0, 0)  # of all time, in a zip


def write() -> Path:
    """Write `_build/crystal-<version>.zip`, whole or not at all.

    Raises: CrystalError if the data is not as recorded, or the book holds pages of the reader's.
    """
    if (root() / OWN).exists():
        what = "the book holds pages of your own tables, which would be published"
        raise CrystalError(what, where=OWN, mend=f"mv {OWN} elsewhere, then make bundle")
    if wrong := sums.problems():
        raise CrystalError("; ".join(wrong), mend="make verify says more")
    path = root() / f"_build/{NAME}.zip"
    temporary = path.with_suffix(".zip.tmp")
    try:
        with open(temporary, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in _with_sums():
                    archive.writestr(_entry(f"{NAME}/{name}"), content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        what = f"the archive could not be written: {error}"
        raise CrystalError(what, mend=mend_of(error, temporary)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, BEGINNING)
    entry.create_system, entry.compress_type = 3, zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _with_sums() -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, in order; the list of their hashes is the last."""
    lines = []
    for name, path in sorted(_files().items()):
        content = path.read_bytes()
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        yield name, content
    yield "SHA256SUMS", "".join(lines).encode()


def _files() -> dict[str, Path]:
    """Where the content of each file lies, by its name in the archive."""
    home, html = root(), index().parent
    found = {f"html/{at.relative_to(html).as_posix()}": at for at in html.rglob("*")}
    found["provenance/pages.csv"] = home / "_build/source/pages.csv"
    recorded = sums.recorded()
    data = [home / name for name in (sums.LIST, *recorded)]
    ours = {Path(name).stem for name in recorded if name.startswith("data/ladders/")}
    for kind in (SAMPLES, DRAWS):
        for ladder in ours & {*logs(kind)}:
            data.append(home / f"data/{kind}/{ladder}/manifest.jsonl")
            data += [shard_path(ladder, record, kind) for record in records(ladder, kind)]
    code = [path for glob in CODE for path in home.glob(glob) if "__pycache__" not in path.parts]
    found |= {path.relative_to(home).as_posix(): path for path in (*data, *code)}
    return {name: path for name, path in found.items() if path.is_file()}
