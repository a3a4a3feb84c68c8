"""Whether data from a file has the shape that its readers count on."""

from __future__ import annotations

import re
from typing import Any


class Hex:
    """Text of so many hexadecimal digits."""

    def __init__(self, *digits: int) -> None:
        self.pattern = re.compile("|".join(rf"[0-9a-f]{{{n}}}" for n in digits))
        self.__name__ = f"{' or '.join(map(str, digits))} hex digits"

    def __call__(self, value: object) -> bool:
        return isinstance(value, str) and bool(self.pattern.fullmatch(value))


def number(value: object) -> bool:
    """A finite number."""
    return count(value) or (type(value) in (int, float) and abs(value) < 1e300)


def count(value: object) -> bool:
    """A whole number from 0 up to what 64 bits hold; True is none."""
    return type(value) is int and 0 <= value < 2**63


def text(value: object) -> bool:
    """A string without halves of characters, which no file can hold."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def flag(value: object) -> bool:
    """True or False."""
    return isinstance(value, bool)


def anything(value: object) -> bool:
    """Whatever it is."""
    return True


def misfit(value: Any, shape: Any, at: str = "it") -> str | None:
    """What is wrong with `value`, in words that begin with `at`; None where it fits.

    shape: a predicate above; [shape] is a list of such; {name: shape} a mapping with at least these
    names; {text: shape} one of any names; a tuple of shapes, any of which will do.
    """
    if isinstance(shape, tuple):
        found = [misfit(value, one, at) for one in shape]
        return None if None in found else found[-1]
    if isinstance(shape, dict):
        return _mapping(value, shape, at)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _must_be(at, "a list", value)
        return _first(misfit(one, shape[0], f"{at}[{i}]") for i, one in enumerate(value))
    return None if shape(value) else _must_be(at, f"a {shape.__name__}", value)


def _mapping(value: Any, shape: dict, at: str) -> str | None:
    if not isinstance(value, dict) or not all(map(text, value)):
        return _must_be(at, "a mapping of names", value)
    if text in shape:
        return _first(misfit(one, shape[text], f"{at}.{name}") for name, one in value.items())
    if lacking := [name for name in shape if name not in value]:
        return f"{at} lacks {lacking[0]!r}"
    return _first(misfit(value[name], one, f"{at}.{name}") for name, one in shape.items())


def _first(found: Any) -> str | None:
    return next((one for one in found if one is not None), None)


def _must_be(at: str, kind: str, value: object) -> str:
    return f"{at} must be {kind}, is {shown(value)}"


def shown(value: object) -> str:
    """A value and its type, for a sentence."""
    huge = isinstance(value, int) and value.bit_length() > 200  # Python cannot write all of them
    return f"{'a huge number' if huge else repr(value):.60} ({type(value).__name__})"
