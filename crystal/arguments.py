"""Numbers on the command line: what is no such number is refused in a sentence, exit 2, before anything is done."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable

from .errors import CrystalError
from .texts import is_number, line

MOST = 2**31 - 1  # of whole numbers: more is a slip, and no count, seed or size here needs it


class Parser(ArgumentParser):
    """Says in a sentence which number is none; of whatever else is wrong, argparse tells the usage."""

    def error(self, message: str) -> None:
        """Raises: CrystalError, or SystemExit(2)."""
        if re.match(r"argument \S+: .* is not a (whole )?number", message):
            raise CrystalError(message.removeprefix("argument "), mend=f"{self.prog} --help")
        super().error(line(message))


def whole(least: int = 0, most: int = MOST) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`, in plain digits."""
    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not least <= int(text) <= most:
            said = f"of {least} or more" if most == MOST else f"from {least} to {most}"
            raise ArgumentTypeError(f"{line(text)!r:.40} is not a whole number {said}")
        return int(text)
    return read


def positive(most: float = 1e9) -> Callable[[str], float]:
    """An argparse type: a number above 0 and at most `most`."""
    def read(text: str) -> float:
        if not is_number(text) or not 0 < float(text) <= most:
            raise ArgumentTypeError(f"{line(text)!r:.40} is not a number above 0 and at most {most:g}")
        return float(text)
    return read


def share(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    if not is_number(text) or not 0 <= float(text) <= 1:
        raise ArgumentTypeError(f"{line(text)!r:.40} is not a number from 0 to 1")
    return float(text)
