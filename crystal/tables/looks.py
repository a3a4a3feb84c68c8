"""What a stranger's file looks like, so that the wrong format is named and not misread."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from .. import texts
from ..errors import CrystalError
from .groups import some
from .records import BOM, parsed

TABLE = {"ladder", "stage", "task", "prompt", "option"}  # what `crystal import` itself writes


def looks_like(path: Path) -> tuple[str | None, str]:
    """The format a file is of, None if of none, and what it looks like, in words.

    Reads its first line, or all of a log.
    """
    with open(path, "rb") as file:
        line = next((line for line in file if line.strip()), b"").removeprefix(BOM).lstrip()
    if not line.startswith((b"{", b"PK", b"PAR1")):
        line = re.split(rb"[\r\n]", line, maxsplit=1)[0]  # lines that end as they once did on a Mac
    if line.startswith(b"PK"):
        return "inspect", "a zip archive"
    if line.startswith(b"PAR1"):
        return "replies", "a parquet file"
    if line.startswith(b"\x1f\x8b"):
        return None, f"compressed: gunzip {path}"
    if b"\0" in line:
        return (
            None,
            f"not text in UTF-8: iconv -t UTF-8 -f UTF-16 {path} > OTHER, "
            "if another program calls it text",
        )
    if not line:
        return None, "empty"
    if not line.startswith(b"{"):
        return _looks_csv(line)
    try:
        keys = parsed(line, f"{path}, line 1").keys()
    except CrystalError as broken:
        try:
            keys = parsed(path.read_bytes(), str(path)).keys()
        except CrystalError:
            return None, f"no line of JSON, nor JSON as a whole: {broken.what}"
    return next(((name, said) for fields, name, said in _LOOKS if fields <= keys),
                (None, f"JSON with the keys {some(sorted(keys), 8)}"))


_LOOKS = (
    ({"doc_id", "resps"}, "lm-eval", "a per-sample log of lm-evaluation-harness"),
    ({"custom_id", "response"}, "openai-batch", "the output of an OpenAI batch"),
    ({"eval", "samples"}, "inspect", "a log of inspect_ai"),
    ({"reply"}, "replies", "a table of replies"),
    ({"custom_id", "body"}, None, "the input of an OpenAI batch, whose output file is wanted"),
    (
        {"results", "configs"},
        None,
        "a summary of lm-evaluation-harness; the samples_*.jsonl beside it are wanted",
    ),
    ({"eval", "plan"}, None, "a log of inspect_ai without samples"),
    (TABLE, None, "a table of counts already: crystal phases reads it as it is"),
)


def _looks_csv(line: bytes) -> tuple[str | None, str]:
    text = line.decode("utf-8", errors="replace")
    try:
        header = next(csv.reader([text]))
    except csv.Error:
        header = []
    cells = {texts.uncell(cell.strip()) for cell in header}
    for fields, name, said in _LOOKS[-1:] + _LOOKS[3:4]:
        if fields <= cells:
            return name, said
    begins = texts.short(text)
    return None, f"text that begins {begins!r}, not with a header that has the column reply"
