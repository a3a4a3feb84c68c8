"""The one exception a user is meant to read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class CrystalError(Exception):
    """Bad input, in a sentence: what is wrong, where, and the command that mends it.

    The command line prints the sentence without a traceback and leaves with exit status 2.
    """

    def __init__(self, what: str, *, where: object = None, mend: str | None = None) -> None:
        self.what, self.where, self.mend = what, where, mend
        said = what if where is None else f"{what} ({where})"
        super().__init__(
            said + ("" if said.endswith("?") else ".") + (f" Mend: {mend}" if mend else "")
        )

    def __reduce__(self) -> tuple:
        """How another process gets it: by its parts."""
        where = None if self.where is None else str(self.where)
        return _remade, (self.what, where, self.mend)


def _remade(what: str, where: str | None, mend: str | None) -> CrystalError:
    return CrystalError(what, where=where, mend=mend)


@contextlib.contextmanager
def placed(where: object, mend: str | None = None) -> Iterator[None]:
    """What a CrystalError or ValueError inside says, said of `where`. mend: where it says none."""
    try:
        yield
    except CrystalError as error:
        raise CrystalError(error.what, where=where, mend=error.mend or mend) from error
    except ValueError as error:
        raise CrystalError(str(error), where=where, mend=mend) from error


def known(name: str, choices, kind: str, mend: str | None = None) -> str:
    """Return `name` if it is one of `choices`; else say which ones there are.

    Raises: CrystalError naming `kind`, the nearest spelling and all choices.
    """
    if name in choices:
        return name
    import difflib

    near = difflib.get_close_matches(str(name), list(map(str, choices)), n=1)
    guess = f", did you mean {near[0]!r}?" if near else ""
    raise CrystalError(
        f"unknown {kind} {name!r}{guess}",
        mend=mend or f"choose one of: {', '.join(map(str, choices))}",
    )
