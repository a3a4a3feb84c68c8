"""Text from elsewhere: parsed strictly, shown harmlessly.

Whoever wrote a table, a log or a model's answer may have written anything. Names are cleaned where
they are read (`name`); all is escaped for the place where it is shown: a page (`markdown`), a
figure (`label`), a spreadsheet (`cell`), a terminal (`line`).
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import textwrap
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any

import yaml

from .errors import CrystalError
from .files import anything, explained, misfit

# Control characters, halves of characters, ends of lines, marks that turn the order of reading.
HOSTILE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = re.compile(r"'*[=+\-@＝＋－＠]")  # what a spreadsheet would compute
DEEPEST = 100  # levels of YAML
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


# -- parsed


def read_text(path: Path, hint: str) -> str:
    """The file's text in UTF-8. Raises: CrystalError with `hint` if it cannot be read as that."""
    try:
        with explained("the file cannot be read", path, hint):
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        what = f"the file is not text in UTF-8 at byte {error.start}"
        raise CrystalError(what, where=path, hint=hint) from error


def parse_json(text: str, where: object, hint: str) -> Any:
    """The value of JSON. Raises: CrystalError if it is broken, repeats a key or is too deep."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise CrystalError(f"broken JSON: {line(str(error))}", where=where, hint=hint) from error


def load_file(path: Path, hint: str | None = None, shape: Any = anything, at: str = "it") -> Any:
    """What a file of YAML, JSON or JSON Lines holds. hint: None for a file of this repository.

    Raises: CrystalError if it does not fit `shape`; `at`: as for `misfit`.
    """
    hint = hint or f"git checkout -- {path}"
    written = read_text(path, hint)
    if path.suffix == ".jsonl":
        found = [parse_json(row, path, hint) for row in written.splitlines()]
    else:
        parse = parse_yaml if path.suffix in (".yaml", ".yml") else parse_json
        found = parse(written, path, hint)
    if wrong := misfit(found, shape, at):
        raise CrystalError(wrong, where=path, hint=hint)
    return found


def _once(pairs: Sequence[tuple[str, Any]]) -> dict:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!r:.60} is given twice in one object")
        found[name] = value
    return found


class _Strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML in which a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := [key for key, _ in node.value if names.count(key.value) > 1]:
                what = f"the key {twice[-1].value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, what, twice[-1].start_mark)
        return super().construct_mapping(node, deep)


def _refuse_deep(text: str) -> None:
    """Before nodes are made, for which the loader recurses in C: without end, it would crash."""
    depth = 0
    for event in yaml.parse(text, Loader=_Strict):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecursionError(f"it is nested more than {DEEPEST} deep")


def parse_yaml(text: str, where: object, hint: str) -> Any:
    """The value of YAML. Raises: CrystalError if it is broken, repeats a key or is too deep."""
    try:
        _refuse_deep(text)
        return yaml.load(text, Loader=_Strict)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        problem = line(" ".join(str(error).split()))
        raise CrystalError(f"broken YAML: {problem}", where=where, hint=hint) from error


def is_number(text: str) -> bool:
    """Whether `text` is a decimal number: no `1_000`, no digits of other scripts, no nan."""
    return bool(_NUMBER.fullmatch(text))


def whole(text: str) -> str:
    """`text` with accents composed (NFC) and, if it is a whole number, without its `.0`."""
    found = unicodedata.normalize("NFC", text)
    return re.sub(r"^(\s*)(?:-(?=0+\.))?([+-]?\d+)\.0+(?=\s*$)", r"\1\2", found, flags=re.ASCII)


def name(text: str) -> str:
    """A name as it is compared: `whole`, no space around it. Raises: ValueError if HOSTILE."""
    found = whole(text).strip()
    if bad := HOSTILE.search(found):
        kind = "half a character," if "\ud800" <= bad[0] <= "\udfff" else "the control character"
        raise ValueError(f"the name {found!a:.60} holds {kind} U+{ord(bad[0]):04X}")
    return found


def reason(error: BaseException) -> str:
    """The first line of what an error says; its class where it says nothing."""
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


def written(value: object) -> str:
    """A cell of any type as text: a whole number without `.0`."""
    try:
        number = isinstance(value, Real | Decimal) and not isinstance(value, bool)
        return str(int(value)) if number and value == int(value) else str(value)
    except (OverflowError, ValueError):  # neither inf nor nan is a whole number
        return str(value)


def number(value: object) -> float:
    """A cell of any type as a number; nan for `true`, `1_000`, digits of other scripts."""
    if isinstance(value, str) and (not value.isascii() or "_" in value):
        return math.nan
    if not isinstance(value, str | Real | Decimal) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan
    except OverflowError:
        return math.inf


def shown(value: object) -> str:
    """A value of any type in a complaint: in one line, cut where it is long or deep."""
    return short(value if isinstance(value, str) else reprlib.repr(value))


def short(text: str, most: int = 60) -> str:
    """`text` in one line for a terminal, cut to `most` characters."""
    found = " ".join(line(text).split())
    return found if len(found) <= most else f"{found[: most - 3]}..."


# -- shown


def markdown(text: object) -> str:
    """MyST that shows just `text`, inline, in a heading or in a table: all punctuation escaped."""
    shown = re.sub(" *[ \n]", " ", line(str(text))).strip(" ")
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", shown)


def code(text: object) -> str:
    """MyST that shows `text` as inline code, where its characters allow that, else as it is."""
    shown = line(str(text))
    if shown and shown == shown.strip() and not re.search(r"[`|\\]", shown):
        return f"`{shown}`"
    return markdown(shown)


def plain(myst: str) -> str:
    """The text that `markdown` was given, white space apart."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", myst)


def label(text: object, most: int = 60, wide: int = 60) -> str:
    """`text` for a figure, where a dollar sign begins no formula.

    A space goes before an underscore, which would hide it from legends. Of more than `most`
    characters the beginning and the end are shown, in lines of at most `wide`.
    """
    shown = line(str(text)).replace("\n", " ")
    if len(shown) > most:
        shown = f"{shown[: most - most // 3 - 1]}…{shown[-(most // 3) :]}"
    if len(shown) > wide:
        shown = "\n".join(textwrap.wrap(shown, wide))
    if shown.startswith("_"):
        shown = f" {shown}"
    return shown.replace("$", r"\$")


def cell(text: object) -> object:
    """`text` for CSV: what a spreadsheet would compute gets an apostrophe before it."""
    if isinstance(text, str) and _FORMULA.match(text) and not is_number(text):
        return f"'{text}"
    return text


def uncell(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def line(text: str) -> str:
    r"""`text` for a terminal: characters that would act on it, or that it lacks, as `\x1b`."""

    def shown(match: re.Match[str]) -> str:
        return match[0] if match[0] == "\n" else match[0].encode("unicode_escape").decode()

    return HOSTILE.sub(shown, text)
