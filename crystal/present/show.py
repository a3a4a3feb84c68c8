"""What a notebook puts on its page: figures, text with numbers already in it, claims.

Every call works in three places. Under papermill the files go into the page's own folder; in an interactive Jupyter
they go to `./_build/interactive/<template>/`; in both, the reader sees HTML at once. The book sees the same output as
MyST markdown, carried beside the HTML under the mime type `MYST`: the assembler turns it into a true markdown cell, so
that figures are numbered, captioned and can be referred to as `fig-<page>-<name>`.

    from crystal.present import show
    show.begin("liquid", task=task, ladders=ladders, quantile=quantile)   # template, then every parameter of the page
    frame = figures.load_prompts(...); show.emit(figures.plot_prompts(frame), "prompts", alt="...", caption="...", data=frame)
    show.claim("many-distributions", ladder="nano-llama", task=task, verdict="holds", number=.63, low=.5, high=.7, null=.01,
               sentence="the prompt tells 0.63 bit about the answer, 0.01 under the null")
    show.tell(f"Liquidity is {show.fmt(.63)} bit.")
    show.verdicts(); show.source(phases.liquidity_bits); show.parameters()

`tell` and captions take MyST: whatever was not written here goes through `crystal.texts.markdown`,
`table` or `listed` first. Alt texts, sentences of claims and cells of data are plain, whatever they
hold. Knows nothing of tasks, ladders or quantities. Loads matplotlib and IPython only when a
function is called.
"""

from __future__ import annotations

import hashlib
import html
import inspect
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CrystalError, known
from ..files import root
from ..texts import cell, code, markdown, plain

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

MYST = "text/x-myst"  # private mime type; no front end renders it, the book's assembler looks for it
CONTEXT = "CRYSTAL_PAGE"  # environment variable: JSON the page runner hands to the kernel
VERDICTS = (  # as `measure.chain` has them, and "measured": no claim hangs on the number
    *("holds", "fails", "undecided", "not-testable", "not-reached", "not-measurable"),
    "measured",
)
PLAIN = re.compile(r"(?:[^\W_]|[ ,%–∞\[\])-]|(?<!\])\(|(?<=\d)\.(?=\d))*")  # no markup in a table
FIELDS = ("claim", "ladder", "task", "verdict", "number", "low", "high", "here", "null", "mark",
          "sentence")


@dataclass
class _Page:
    id: str
    template: str
    folder: Path
    parameters: dict[str, Any]
    help: dict[str, str] = field(default_factory=dict)
    changed: dict[str, list] = field(default_factory=dict)  # name -> [value in the page list, value used]
    inputs: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, dict] = field(default_factory=dict)
    figures: set[str] = field(default_factory=set)


_current: _Page | None = None


def begin(template: str, **parameters: Any) -> None:
    """Start the page; call it once, in the cell after the parameters, with the template's name and *every* parameter.

    Sets the book's matplotlib style and byte-stable SVG. If the page runs with other values than the page list gives
    it, the page says so at its top.
    Raises: CrystalError if the parameters are not those the page was started with (one was forgotten or overwritten).
    """
    global _current
    import matplotlib.style

    handed = json.loads(os.environ.get(CONTEXT, "{}"))
    folder = Path(handed.get("folder") or Path("_build/interactive") / template)
    if handed and handed["parameters"] != parameters:
        differ = sorted(n for n in handed["parameters"].keys() | parameters
                        if (n, handed["parameters"].get(n)) != (n, parameters.get(n)))
        raise CrystalError(f"show.begin was not given the page's parameters: {', '.join(differ)}", where=handed["id"],
                           mend=f"name every parameter of notebooks/{template}.ipynb in its show.begin call")
    folder.mkdir(parents=True, exist_ok=True)
    _current = _Page(handed.get("id", template), template, folder, parameters,
                     *(handed.get(key, {}) for key in ("help", "changed", "inputs")))
    matplotlib.style.use(Path(handed.get("style") or _style()))
    matplotlib.rcParams["svg.hashsalt"] = "crystal"  # element ids are random without it
    if _current.changed:
        rows = "\n".join(f"- {code(name)} is {code(repr(used))} (in the book: {code(repr(listed))})"
                         for name, (listed, used) in _current.changed.items())
        tell(f"````{{admonition}} Other parameters than in the book\n:class: warning\n{rows}\n\n"
             "`make reproduce` restores it.\n````")


def emit(fig: matplotlib.figure.Figure, name: str, *, alt: str, caption: str, data: pandas.DataFrame) -> None:
    """Put a figure on the page: `<name>.svg`, the plotted numbers `<name>.csv`, and where they come from `<name>.json`.

    name: lower-case words joined by hyphens, unique on the page; the book's label is `fig-<page>-<name>`.
    alt: states the finding for those who cannot see the picture; plain text, whatever it holds.
    caption: MyST; numbers in it must come from code, names through `crystal.texts.markdown`.
    data: exactly what is drawn, one row per mark; floats are written with ten significant digits,
    texts that a spreadsheet would compute with an apostrophe before them.
    The same figure gives the same bytes in every file.
    """
    import matplotlib.pyplot as plt

    page = _page()
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or name in page.figures:
        raise CrystalError(f"figure name {name!r} is taken or not made of lower-case words and hyphens", where=page.id,
                           mend="give the figure another name")
    for what, text in (("alt", alt), ("caption", caption)):
        if not text.strip():
            raise CrystalError(f"figure {name!r} has no {what} text", where=page.id,
                               mend=f"pass {what}= a sentence with the finding")
    page.figures.add(name)
    svg, csv = page.folder / f"{name}.svg", page.folder / f"{name}.csv"
    if layout := fig.get_layout_engine():
        layout.execute(fig)
        fig.set_layout_engine("none")  # else saving draws everything twice, once for the layout
    fig.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(fig)  # else the inline backend draws it a second time
    safe = data.map(cell).rename(columns=cell)
    safe.to_csv(csv, index=False, float_format="%.10g", lineterminator="\n")
    _write_json(page.folder / f"{name}.json", {
        "figure": name, "page": page.id, "template": page.template, "parameters": page.parameters, "inputs": page.inputs,
        "alt": alt, "caption": caption,
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (svg, csv)},
    })
    at, quoted = f"/pages/{page.id}/{name}", json.dumps(alt, ensure_ascii=False)
    flat = re.sub(r"\s+", " ", caption, flags=re.ASCII).strip()
    myst = (f"````{{figure}} {at}.svg\n:name: fig-{page.id}-{name}\n:alt: {quoted}\n"
            ":class: dark-light\n:width: 100%\n\n"
            f"{flat} {{download}}`Plotted data (CSV) <{at}.csv>`\n````")
    picture = svg.read_text(encoding="utf-8").partition("<svg")
    told = f"<figcaption>{html.escape(plain(caption))}</figcaption>"
    _display(myst, f"<figure><svg{picture[2]}{told}</figure>")


def tell(myst: str) -> None:
    """Put MyST markdown on the page. Numbers in it come from code: f"{show.fmt(x)}"."""
    _page()
    _display(myst, None)


def table(head: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """A MyST table of plain cells, each shown as it is, whatever it holds."""
    lines = [map(_shown, head), ["---"] * len(head), *(map(_shown, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(text: object) -> str:
    """A cell: words and numbers stay readable in the source, too, the rest is escaped."""
    return str(text) if PLAIN.fullmatch(str(text)) else markdown(text)


def listed(sentences: Iterable[object]) -> str:
    """A MyST list of plain sentences, each shown as it is, whatever it holds."""
    return "\n".join(f"- {markdown(sentence)}" for sentence in sentences)


def claim(name: str, *, verdict: str, sentence: str, ladder: str = "", task: str = "", number: float | None = None,
          low: float | None = None, high: float | None = None, here: float | None = None,
          null: float | None = None, mark: float | None = None) -> None:
    """Record a verdict (or a measured number) in the page's `claims.json`, where all prose takes its numbers from.

    verdict: one of VERDICTS; "measured" for a number that no claim hangs on.
    number, low, high: the estimate and its interval. here: the number of these prompts. null: what
    chance gives. mark: the figure `number` has to beat.
    sentence: the verdict in words, with the number and its null in them; plain text.
    Prose quotes it by the role claim, as `page/name@ladder.field` (no `@ladder` if none was given); fields: those of FIELDS,
    and `interval`.
    Raises: CrystalError for an unknown verdict, a number that is not finite, a claim recorded twice.
    """
    page = _page()
    known(verdict, VERDICTS, "verdict")
    key = f"{name}@{ladder}" if ladder else name
    if key in page.claims:
        raise CrystalError(f"claim {key!r} is recorded twice", where=page.id, mend="name each claim once per ladder")
    numbers = {"number": number, "low": low, "high": high, "here": here, "null": null, "mark": mark}
    for part, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise CrystalError(f"claim {key!r} has {part} = {value}", where=page.id,
                               mend="record None for a number that does not exist")
    record = {"claim": name, "ladder": ladder, "task": task, "verdict": verdict, "sentence": sentence,
              **{part: value if value is None else int(value) if isinstance(value, Integral) else float(value)
                 for part, value in numbers.items()}}
    page.claims[key] = {part: record[part] for part in FIELDS}
    _write_json(page.folder / "claims.json", page.claims)


def verdicts() -> None:
    """Put the claims recorded so far on the page, one line each: verdict first, then the sentence."""
    judged = [c for c in _page().claims.values() if c["verdict"] != "measured"]
    lines = [f"- **{c['verdict']}** · " + markdown(
        " · ".join(filter(None, (c["claim"], c["ladder"]))) + f": {c['sentence']}") for c in judged]
    tell("````{admonition} Verdicts\n:class: note\n" + "\n".join(lines or ["None."]) + "\n````")


def stop(why: str) -> None:
    """End the page, for there is nothing to show: the cells that follow run no more. why: a plain
    sentence.

    Raises: CrystalError where no page runner waits for the end.
    """
    if CONTEXT not in os.environ:
        raise CrystalError(why, where=_page().id, mend="choose another task or ladder")
    from IPython import get_ipython

    tell(f"{markdown(why)} Nothing is shown below.")
    verdicts()
    parameters()
    get_ipython().input_transformers_cleanup.append(lambda lines: [])


def parameters() -> None:
    """Put the page's parameters on the page: name, value, and what each means (from the comments of the parameters cell)."""
    page = _page()
    rows = "\n".join(f"| {code(name)} | {code(repr(value))} | {markdown(page.help.get(name, ''))} |"
                     for name, value in page.parameters.items())
    tell(f"| parameter | value | meaning |\n|---|---|---|\n{rows}\n\n"
         f"Change one with `make page PAGE={page.id} P=\"name=value\"`.")


def source(*functions: Callable) -> None:
    """Put the source of the estimators on the page, folded."""
    for function in functions:
        text = inspect.getsource(function).rstrip()
        name = f"{function.__module__}.{function.__qualname__}"
        tell(f"`````{{dropdown}} Source of {name}\n````python\n{text}\n````\n`````")


def fmt(number: float | None) -> str:
    """A number as prose prints it: three significant digits, no exponent from 0.0001 on; None and nan are a dash."""
    if number is None or math.isnan(number):
        return "–"
    if isinstance(number, int) or (abs(number) >= 100 and math.isfinite(number)):
        return f"{number:,.0f}"
    if number and abs(number) < 1e-4:
        return f"{number:.2e}"
    exponent = int(f"{number:.2e}".partition("e")[2])  # after rounding: 0.009999 is 0.0100
    return f"{number:.{max(0, 2 - exponent)}f}"


def _page() -> _Page:
    if _current is None:
        raise CrystalError("no page was begun", mend="call show.begin(template, parameter=value, ...) first")
    return _current


def _style() -> Path:
    return root() / "book" / "crystal.mplstyle"


def _write_json(path: Path, value: Mapping) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def _display(myst: str, seen: str | None) -> None:
    from IPython.display import display

    display({MYST: myst, **({"text/html": seen} if seen else {"text/markdown": myst})}, raw=True)
