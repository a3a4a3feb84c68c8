"""What a notebook puts on its page: figures, text with numbers already in it, claims.

Files go into the page's own folder, in an interactive Jupyter to `_build/interactive/<template>/`.
A notebook shows HTML; the book takes the same output as MyST, carried beside it under the mime type
`MYST`, so that figures are numbered, captioned and can be referred to as `fig-<page>-<name>`.

    show.begin("liquid", task=task, ladders=ladders)  # template, then every parameter of the page
    show.emit(figures.plot_pairs(frame), "pairs", alt="...", caption="...", data=frame)
    show.prose(f"Liquidity is {show.fmt(.63)} bit.")
    show.verdicts()

`prose` and captions take MyST: whatever was not written here goes through `crystal.texts.markdown`,
`table` or `listed` first. Alt texts, sentences of claims and cells of data are plain.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import inspect
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CrystalError, known
from ..files import file_sha256, root
from ..texts import cell, code, markdown, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

MYST = "text/x-myst"  # private mime type, for the book's assembler; no front end renders it
CONTEXT = "CRYSTAL_PAGE"  # environment variable: JSON the page runner hands to the kernel
VERDICTS = ("holds", "fails", "undecided", "not-testable", "not-reached", "not-measurable")
VERDICTS += ("measured",)  # no claim hangs on the number
PLAIN = re.compile(r"(?:[^\W_]|[ ,%–∞\[\])-]|(?<!\])\(|(?<=\d)\.(?=\d))*")  # no markup in a table
NUMBERS = ("number", "low", "high", "here", "null", "threshold")
FIELDS = ("claim", "ladder", "task", "verdict", *NUMBERS, "sentence")
ENLARGED = 1.75  # CSS pixels that a point of a figure gets where there is room
READABLE = 9  # CSS pixels: the smallest text of a figure, however narrow the screen
NUMERIC = re.compile(r"[+-]?[\d.,]*\d(e[+-]?\d+)?( ?%)?( \[.*\])?|–|∞|", re.ASCII)


@dataclass
class _Page:
    id: str
    template: str
    folder: Path
    parameters: dict[str, Any]
    help: dict[str, str]
    changed: dict[str, list]  # name -> [value in the page list, value used]
    inputs: dict[str, Any]
    claims: dict[str, dict] = field(default_factory=dict)
    figures: set[str] = field(default_factory=set)
    folded: list[tuple[str, dict[str, str]]] | None = None  # what the open fold holds so far


_current: _Page | None = None


def begin(template: str, **parameters: Any) -> None:
    """Start the page, with *every* parameter, in the book's figure style. Other values than those
    of the page list are told at the top.

    Raises: CrystalError if the parameters are not those the page was started with.
    """
    global _current
    import matplotlib.style

    handed = json.loads(os.environ.get(CONTEXT, "{}"))
    folder = Path(handed.get("folder") or Path("_build/interactive") / template)
    if handed and (theirs := handed["parameters"]) != parameters:
        no, names = object(), sorted(theirs | parameters)
        differ = [name for name in names if theirs.get(name, no) != parameters.get(name, no)]
        what = f"show.begin was not given the page's parameters: {', '.join(differ)}"
        hint = f"name every parameter of notebooks/{template}.ipynb in its show.begin call"
        raise CrystalError(what, where=handed["id"], hint=hint)
    folder.mkdir(parents=True, exist_ok=True)
    about = (handed.get(key, {}) for key in ("help", "changed", "inputs"))
    _current = _Page(handed.get("id", template), template, folder, parameters, *about)
    matplotlib.style.use(Path(handed.get("style") or root() / "book" / "crystal.mplstyle"))
    matplotlib.rcParams["svg.hashsalt"] = "crystal"  # element ids are random without it
    if _current.changed:
        rows = [
            f"- {code(name)} is {code(repr(used))} (in the book: {code(repr(listed))})"
            for name, (listed, used) in _current.changed.items()
        ]
        what, restored = "Other parameters than in the book", "\n`make reproduce` restores it."
        prose(block("admonition", what, ":class: warning", *rows, restored))


def emit(fig: Figure, name: str, *, alt: str, caption: str, data: DataFrame) -> None:
    """Put a figure on the page: `<name>.svg`, the plotted numbers as CSV, their origin as JSON.

    alt: the finding, for those who cannot see the picture. data: exactly what is drawn, one row per
    mark; ten significant digits are written. The same figure gives the same bytes in every file.
    """
    import matplotlib.pyplot as plt

    page = _named(name)
    for what, text in (("alt", alt), ("caption", caption)):
        if not text.strip():
            hint = f"pass {what}= a sentence with the finding"
            raise CrystalError(f"figure {name!r} has no {what} text", where=page.id, hint=hint)
    svg = page.folder / f"{name}.svg"
    if layout := fig.get_layout_engine():
        layout.execute(fig)
        fig.set_layout_engine("none")  # else saving draws everything twice, once for the layout
    fig.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(fig)  # else the inline backend draws it a second time
    dark, csv = svg.with_suffix(".dark.svg"), _write_csv(name, data)
    drawn, wide = svg.read_text(encoding="utf-8"), 72 * fig.get_figwidth()
    dark.write_text(on_dark(drawn), encoding="utf-8")
    about = {"figure": name, "page": page.id, "template": page.template}
    about |= {"parameters": page.parameters, "inputs": page.inputs, "alt": alt, "caption": caption}
    about |= {"files": {path.name: file_sha256(path) for path in (svg, dark, csv)}}
    _write_json(page.folder / f"{name}.json", about)
    at, quoted = f"/pages/{page.id}/{name}", json.dumps(alt, ensure_ascii=False)
    flat = re.sub(r"\s+", " ", caption, flags=re.ASCII).strip()
    least = math.ceil(READABLE * wide / smallest(drawn))
    myst = (
        f"````{{figure}} {at}.svg\n:name: fig-{page.id}-{name}\n:alt: {quoted}\n"
        f":class: dark-light least-{least}\n:width: {round(ENLARGED * wide)}px\n\n"
        f"{flat} {{download}}`Plotted data (CSV) <{at}.csv>`\n````"
    )
    picture = "".join(drawn.partition("<svg")[1:])
    below = f"<figcaption>{html.escape(plain(caption))}</figcaption>"
    _display(myst, f'<figure style="background: #fff">{picture}{below}</figure>')


def smallest(svg: str) -> float:
    """The size of the smallest text of a drawing by matplotlib, in points."""
    # letters are drawn a hundred times their size in points, and scaled; exponents again
    sizes = [100 * float(scale) for scale in re.findall(r"scale\(([\d.]+) -\1\)", svg)]
    return min(sizes, default=10.0) * (0.7 if " scale(0.7)" in svg else 1)


def on_dark(svg: str) -> str:
    """The same drawing for a dark ground: greys are mirrored, colours stay."""

    def mirrored(grey: re.Match) -> str:
        return "#" + f"{round(0xE6 - int(grey[1], 16) * 0.82):02x}" * 3

    svg = re.sub(r"#([0-9a-f]{2})\1\1\b", mirrored, svg)
    return svg.replace("<svg ", '<svg fill="#e6e6e6" ', 1)  # matplotlib leaves black out


def embed(name: str, element: str, *, script: str, needs: Sequence[str], data: DataFrame) -> None:
    """Put an HTML element on the page, with what brings it to life, and its numbers as CSV.

    element, script: as they are; escape what was not written here. needs: style sheets, and scripts
    that run after `script`, in book/_theme or book/_vendor; no other page loads them.
    """
    page = _named(name)
    (page.folder / f"{name}.js").write_text(script, encoding="utf-8")
    _write_csv(name, data)
    version = hashlib.sha256(script.encode()).hexdigest()[:8]  # else a browser shows an old copy
    linked = [element, f'<script defer src="../_static/{page.id}/{name}.js?v={version}"></script>']
    inside = [element, f"<script>{script}</script>"]
    for path in needs:
        places = (root() / "book" / folder / path for folder in ("_theme", "_vendor"))
        text = next(filter(Path.is_file, places)).read_text(encoding="utf-8")
        if path.endswith(".css"):
            linked.append(f'<link rel="stylesheet" href="../_static/{path}">')
            inside.append(f"<style>{text}</style>")
        else:
            linked.append(f'<script defer src="../_static/{path}"></script>')
            inside.append(f"<script>{text}</script>")
    csv = f"{{download}}`Numbers shown (CSV) </pages/{page.id}/{name}.csv>`"
    raw = "\n".join(["````{raw} html", *linked, "````"])
    _display(f"{raw}\n\n{csv}", "\n".join(inside))


def _named(name: str) -> _Page:
    """The page, on which the figure's name is taken from now on."""
    page = _page()
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or name in page.figures:
        what = f"figure name {name!r} is taken or not made of lower-case words and hyphens"
        raise CrystalError(what, where=page.id, hint="give the figure another name")
    page.figures.add(name)
    return page


def _write_csv(name: str, data: DataFrame) -> Path:
    path, safe = _page().folder / f"{name}.csv", data.map(cell).rename(columns=cell)
    safe.to_csv(path, index=False, float_format="%.10g", lineterminator="\n")
    return path


def prose(myst: str, seen: str | None = None) -> None:
    """Put MyST markdown on the page. seen: HTML that a notebook shows in its place."""
    _display(myst, seen)


@contextlib.contextmanager
def fold(title: str) -> Iterator[None]:
    """What is shown meanwhile stands in one fold of the book's page; a notebook shows it open.

    A link to `#` and the title's slug opens the fold.
    """
    from IPython.display import display

    page = _page()
    page.folded = held = []
    try:
        yield
    finally:
        page.folded = None
    parts = [f'<span id="{slug(title)}"></span>', *(myst for myst, _ in held)]
    head = f"::::::::{{dropdown}} {title}\n:class-container: page-fold"
    book = "\n\n".join([head, *parts, "::::::::"])
    for _, notebook in held:
        display({MYST: book} | notebook, raw=True)
        book = ""


def table(head: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """A MyST table of plain cells, each shown as it is; columns of numbers stand at the right."""
    rows = [list(map(str, row)) for row in rows]
    numeric = (all(map(NUMERIC.fullmatch, column)) for column in zip(*rows))
    rules = ["---:" if right else "---" for right in numeric] or ["---"] * len(head)
    lines = [map(_shown, head), rules, *(map(_shown, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(text: object) -> str:
    """A cell whose words and numbers stay readable in the source, too; the rest is escaped."""
    return str(text) if PLAIN.fullmatch(str(text)) else markdown(text)


def listed(sentences: Iterable[object]) -> str:
    """A MyST list of plain sentences, each shown as it is."""
    return "\n".join(f"- {markdown(sentence)}" for sentence in sentences)


def claim(
    name: str, *, verdict: str, sentence: str, ladder: str = "", task: str = "", **numbers: Any
) -> None:
    """Record a verdict (or a measured number) in the page's `claims.json`, the source of all prose.

    sentence: the verdict in words, with its numbers. numbers: number, low, high (the estimate and
    its interval), here (of these prompts), null (what chance gives), threshold (what the number has
    to beat); None for what does not exist. Prose quotes it by the role claim, as
    `page/name@ladder.field` (no `@ladder` if none was given).
    Raises: CrystalError for an unknown verdict, a number that is not finite, a claim made twice.
    """
    page = _page()
    known(verdict, VERDICTS, "verdict")
    key = f"{name}@{ladder}" if ladder else name
    if key in page.claims:
        what = f"claim {key!r} is recorded twice"
        raise CrystalError(what, where=page.id, hint="name each claim once per ladder")
    record = dict.fromkeys(FIELDS) | {"claim": name, "ladder": ladder, "task": task}
    record |= {"verdict": verdict, "sentence": sentence}
    for part, value in numbers.items():
        known(part, NUMBERS, "number of a claim")
        if value is not None and not math.isfinite(value):
            hint = "record None for a number that does not exist"
            raise CrystalError(f"claim {key!r} has {part} = {value}", where=page.id, hint=hint)
        if value is not None:
            record[part] = int(value) if isinstance(value, Integral) else float(value)
    page.claims[key] = record
    _write_json(page.folder / "claims.json", page.claims)


def block(kind: str, title: str, *lines: str) -> str:
    """A MyST directive, such as a dropdown, around lines that may hold shorter fences."""
    return "\n".join([f"`````{{{kind}}} {title}", *lines, "`````"])


def verdicts() -> None:
    """Put the claims recorded so far on the page, one line each: verdict, then the sentence."""
    lines = []
    for c in _page().claims.values():
        about = " · ".join(filter(None, (c["claim"], c["ladder"])))
        if c["verdict"] != "measured":
            lines.append(f"- **{c['verdict']}** · {markdown(about + ': ' + c['sentence'])}")
    prose(block("admonition", "Verdicts", ":class: note", *lines or ["None."]))


def stop(why: str) -> None:
    """End the page, for there is nothing to show: later cells do not run. why: a plain sentence.

    Raises: CrystalError in an interactive Jupyter.
    """
    if CONTEXT not in os.environ:
        raise CrystalError(why, where=_page().id, hint="choose another task or ladder")
    from IPython import get_ipython

    prose(f"{markdown(why)} Nothing is shown below.")
    verdicts()
    parameters()
    get_ipython().input_transformers_cleanup.append(lambda lines: [])


def parameters() -> None:
    """Put the page's parameters on the page, in one fold."""
    page = _page()
    rows = (
        f"| {code(name)} | {code(repr(value))} | {markdown(page.help.get(name, ''))} |"
        for name, value in page.parameters.items()
    )
    change = f'\nChange one with `make page PAGE={page.id} P="name=value"`.'
    head = "| parameter | value | meaning |\n|---|---|---|"
    prose(block("dropdown", "Parameters", head, *rows, change))


def source(*functions: Callable) -> None:
    """Put the source of the estimators on the page, in one fold."""
    short = "`ev`, `inf` and `ph` stand for `evidence`, `inference` and `quantities`"
    parts = [f"In these, {short} of `crystal.measure`."]
    for function in functions:
        text, name = inspect.getsource(function), f"{function.__module__}.{function.__qualname__}"
        parts.append(f"\nSource of {name}\n````python\n{text.rstrip()}\n````")
    prose(block("dropdown", "How the numbers are computed", *parts))


def fmt(number: float | None) -> str:
    """A number as prose prints it: three significant digits, no exponent from 0.0001 on.

    An integer stays one; another non-number than infinity is a dash.
    """
    if number is None or not math.isfinite(number):
        return "∞" if number == math.inf else "–"
    if isinstance(number, int) or abs(number) >= 100:
        return f"{number:,.0f}"
    if number and abs(number) < 1e-4:
        return f"{number:.2e}"
    exponent = int(f"{number:.2e}".partition("e")[2])  # after rounding: 0.009999 is 0.0100
    return f"{number:.{max(0, 2 - exponent)}f}"


def _page() -> _Page:
    if _current is None:
        hint = "call show.begin(template, parameter=value, ...) first"
        raise CrystalError("no page was begun", hint=hint)
    return _current


def _write_json(path: Path, value: Mapping) -> None:
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _display(myst: str, seen: str | None) -> None:
    """seen: HTML for a notebook, else the MyST itself."""
    from IPython.display import display

    notebook, held = {"text/html": seen} if seen else {"text/markdown": myst}, _page().folded
    if held is None:
        display({MYST: myst} | notebook, raw=True)
    else:
        held.append((myst, notebook))


def number(x: float | None) -> str:
    """As `fmt`, but of an integer as of a float: 3 is 3.00."""
    return fmt(None if x is None else float(x))


def interval(estimate: Any) -> str:
    """`between` of anything with a value, low and high."""
    return between(estimate.value, estimate.low, estimate.high)


def between(value: float, low: float, high: float) -> str:
    """`value [low, high]` with as many decimals as give the interval's width two digits; the value
    alone if there is no interval, or one without width.
    """
    if not low < high:
        return number(value)
    if not math.isfinite(high - low):
        return f"{number(value)} [{number(low)}, {number(high)}]"
    decimals = max(0, 1 - int(f"{high - low:.1e}".partition("e")[2]))
    value, low, high = (f"{x:z,.{decimals}f}" if x else "0" for x in (value, low, high))
    return f"{value} [{low}, {high}]"


def slug(label: str) -> str:
    """Lower-case words joined by hyphens."""
    return re.sub("[^a-z0-9]+", "-", label.lower()).strip("-")


def counted(counts: Mapping[str, int], tasks: int) -> str:
    """`holds on 2 of 15 tasks, fails on 1, undecided on 12`. counts: of each verdict."""
    others = [f"{v.replace('-', ' ')} on {counts[v]}" for v in VERDICTS[1:] if counts.get(v)]
    return ", ".join([f"holds on {counts.get('holds', 0)} of {tasks} tasks", *others])
