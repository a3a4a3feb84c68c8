"""The one exception a user is meant to read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class CrystalError(Exception):
    """Bad input, in a sentence: what is wrong, where, and the command that helps.

    The command line prints the sentence without a traceback and leaves with exit status 2.
    """

    def __init__(self, what: str, where: object = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        sentence = what if where is None else f"{what} ({where})"
        sentence += "" if sentence.endswith("?") else "."
        super().__init__(sentence + (f" Hint: {hint}" if hint else ""))

    def __reduce__(self) -> tuple:
        """How another process gets it: by its parts."""
        return CrystalError, (self.what, self.where and str(self.where), self.hint)


@contextlib.contextmanager
def placed(where: object, hint: str | None = None) -> Iterator[None]:
    """What a CrystalError or ValueError inside says, said of `where`. hint: where it says none."""
    try:
        yield
    except CrystalError as error:
        raise CrystalError(error.what, where=where, hint=error.hint or hint) from error
    except ValueError as error:
        raise CrystalError(str(error), where=where, hint=hint) from error


def known(name: str, choices, kind: str, hint: str | None = None) -> str:
    """Return `name` if it is one of `choices`; else say which ones there are.

    Raises: CrystalError naming `kind`, the nearest spelling and all choices.
    """
    if name in choices:
        return name
    import difflib

    near = difflib.get_close_matches(str(name), list(map(str, choices)), n=1)
    guess = f", did you mean {near[0]!r}?" if near else ""
    hint = hint or f"choose one of: {', '.join(map(str, choices))}"
    raise CrystalError(f"unknown {kind} {name!r}{guess}", hint=hint)
