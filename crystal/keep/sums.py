"""One hash for every file that pages read and no manifest covers: `data/SHA256SUMS`.

`sha256sum -c` reads it, too. Commands that write such files take them into the list.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator

from ..errors import CrystalError, placed
from ..files import explained, file_sha256, root, write_file
from ..texts import line, read_text

LIST = "data/SHA256SUMS"
COVERED = ("data/**/*", "notebooks/*.ipynb", "book/*.yml")
NOT = re.compile(
    r"data/(samples|draws)/|data/weights/[^/]+/[^/]+-\d+/"  # these do not ship
    r"|data/SHA256SUMS|book/own\.yml|.*\.tmp$|.*/\."
)
BACK = f"git checkout -- {LIST}"


def there() -> dict[str, str]:
    """sha256 of every covered file that is there, by path from the root, sorted."""
    home, found = root(), {}
    for path in (path for glob in COVERED for path in home.glob(glob)):
        name = path.relative_to(home).as_posix()
        if not NOT.match(name) and path.is_file():
            with explained("a file cannot be read", path):
                found[name] = file_sha256(path)
    return dict(sorted(found.items()))


def recorded() -> dict[str, str]:
    """sha256 by path, as the list has it; empty if there is no list.

    Raises: CrystalError for a line that is none, or a list that is not whole.
    """
    path, found = root() / LIST, {}
    if not path.exists():
        return found
    head, _, body = read_text(path, BACK).partition("\n")
    with placed(path, BACK):
        if head != _head(body):
            raise ValueError("the list of hashes is not whole: its first line is of other lines")
        for number, text in enumerate(body.removesuffix("\n").split("\n"), 2):
            match = re.fullmatch(r"([0-9a-f]{64})  ([^\x00-\x1f]+)", text)
            if not match or match[2] in found:
                what = f"line {number} of the list of hashes is damaged: {line(text)!r:.90}"
                raise ValueError(what)
            found[match[2]] = match[1]
    return found


def differences() -> dict[str, str]:
    """What is not as recorded, by path from the root; whatever is in no list is a reader's own."""
    now, then = there(), recorded()
    gone = sorted(then.keys() - now)
    changed = sorted(name for name in then.keys() & now if now[name] != then[name])
    return dict.fromkeys(gone, "is missing") | dict.fromkeys(changed, "is not what was recorded")


def problems() -> list[str]:
    """A sentence for every listed file that is missing or has changed, and one if no list is."""
    if not recorded():
        return [str(CrystalError("there is no list of hashes", where=root() / LIST, hint=BACK))]
    mine = "or, if the change is yours: crystal verify --record"
    return [
        str(CrystalError(f"{name} {what}", hint=f"git checkout -- {name}; {mine}"))
        for name, what in differences().items()
    ]


def note() -> str:
    """One line that names what is not as recorded; empty if all is, or if there is no list."""
    names = list(differences())
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    note = "note: pages show what is there now, which is not as recorded"
    return f"{note}: {', '.join(names[:5])}{more}; make verify says more" if names else ""


def record(hashes: dict[str, str] | None = None) -> int:
    """Write the list, of what is there now if nothing is given; its length. Raises: OSError."""
    hashes = there() if hashes is None else hashes
    body = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    write_file(root() / LIST, f"{_head(body)}\n{body}".encode())
    return len(hashes)


def _head(body: str) -> str:
    """The list's first line, or others could be missing unseen."""
    return f"# sha256 of the lines below: {hashlib.sha256(body.encode()).hexdigest()}"


@contextlib.contextmanager
def keeping() -> Iterator[None]:
    """Take into the list, if there is one, what is written or removed inside, and no more."""
    before, then = there(), recorded()
    try:
        yield
    finally:  # what an interrupted command wrote is its own, too
        if then:
            now = there()
            ours = {name: now.get(name) for name, _ in before.items() ^ now.items()}
            after = {name: sha256 for name, sha256 in (then | ours).items() if sha256}
            if after != then:
                record(after)
