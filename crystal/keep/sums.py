"""One hash for every file that pages read and no manifest covers: `data/SHA256SUMS`, which `sha256sum -c` reads, too.

It covers `data/` (read-outs and draws have manifests of their own), the page templates and the page list. Commands
that write such files take them into the list; whatever else changes one shows.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import CrystalError
from ..files import file_sha256, mend_of, root, write_file
from ..texts import line, read_text

LIST = "data/SHA256SUMS"
COVERED = ("data/**/*", "notebooks/*.ipynb", "book/*.yml")
NOT = re.compile(r"data/(samples|draws)/|data/weights/[^/]+/[^/]+-\d+/"  # these do not ship
                 r"|data/SHA256SUMS|book/own\.yml|.*\.tmp$|.*/\.")


class Differences(NamedTuple):
    """What is not as recorded, by path from the root."""

    changed: tuple[str, ...]
    missing: tuple[str, ...]
    new: tuple[str, ...]  # in no list: a reader's own


def there() -> dict[str, str]:
    """sha256 of every covered file that is there, by path from the root, sorted."""
    paths = {path.relative_to(root()).as_posix(): path for glob in COVERED for path in root().glob(glob)}
    return {name: _sha256(path) for name, path in sorted(paths.items()) if not NOT.match(name) and path.is_file()}


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise CrystalError(f"a file cannot be read: {error.strerror}", where=path, mend=mend_of(error, path)) from error


def recorded() -> dict[str, str]:
    """sha256 by path, as the list has it; empty if there is no list. Raises: CrystalError for a line that is none."""
    path = root() / LIST
    if not path.exists():
        return {}
    mend = f"git checkout -- {LIST}"
    head, _, body = read_text(path, mend).partition("\n")
    if head != _head(body):
        raise CrystalError("the list of hashes is not whole: its first line is of other lines", where=path, mend=mend)
    found = {}
    for number, text in enumerate(body.removesuffix("\n").split("\n"), 2):
        match = re.fullmatch(r"([0-9a-f]{64})  ([^\x00-\x1f]+)", text)
        if not match or match[2] in found:
            raise CrystalError(f"line {number} of the list of hashes is damaged: {line(text)!r:.90}", where=path, mend=mend)
        found[match[2]] = match[1]
    return found


def differences() -> Differences:
    """What is there against what is recorded."""
    now, then = there(), recorded()
    return Differences(tuple(name for name in now if name in then and now[name] != then[name]),
                       tuple(name for name in then if name not in now), tuple(name for name in now if name not in then))


def problems() -> list[str]:
    """A sentence for every listed file that is missing or has changed, and one if there is no list."""
    if not recorded():
        return [str(CrystalError("there is no list of hashes", where=root() / LIST, mend=f"git checkout -- {LIST}"))]
    found = differences()
    mine = "or, if the change is yours: crystal verify --record"
    return [str(CrystalError(f"{name} {what}", mend=f"git checkout -- {name}; {mine}"))
            for names, what in ((found.missing, "is missing"), (found.changed, "is not what was recorded"))
            for name in names]


def note() -> str:
    """One line that names what is not as recorded; empty if all is, or if there is no list."""
    found = differences() if recorded() else Differences((), (), ())
    names = (*found.missing, *found.changed)
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    shown = ", ".join(names[:5])
    return f"note: pages show what is there now, which is not as recorded: {shown}{more}; make verify says more"


def record(hashes: dict[str, str] | None = None) -> int:
    """Write the list, of what is there now if nothing is given; returns its length. Raises: OSError."""
    hashes = there() if hashes is None else hashes
    body = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    write_file(root() / LIST, f"{_head(body)}\n{body}".encode())
    return len(hashes)


def _head(body: str) -> str:
    """The list's first line: else lines could be missing unseen."""
    return f"# sha256 of the lines below: {hashlib.sha256(body.encode()).hexdigest()}"


@contextlib.contextmanager
def keeping() -> Iterator[None]:
    """Take into the list what is written or removed inside, and nothing that had changed before. No list: nothing."""
    before, then = there(), recorded()
    try:
        yield
    finally:  # what an interrupted command wrote is its own, too
        if then:
            now = there()
            ours = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
            kept = {name: now[name] if name in ours else then[name] for name in now.keys() & (ours | then.keys())}
            gone = {name: then[name] for name in then.keys() - now.keys() - ours}  # missing before: still to be seen
            if (after := kept | gone) != then:
                record(after)
