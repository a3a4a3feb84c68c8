"""What the book needs of its engine: roles that quote claims and link pages, figures numbered by
the page, and cures for some of its habits.

    {claim}`liquid-digit/liquidity@nano-llama.number`     the number, formatted
    {claim}`liquid-digit/liquidity@nano-llama.verdict`    holds, fails, undecided, measured
    {claim}`liquid-digit/liquidity@nano-llama.interval`   low to high
    {claim}`overview/collapse@tulu3-8b.sentence?`         the same, or a dash if nobody measured it
    {claim}`overview/runs-collapse@nano-llama.runs?`      in 2 of 3 runs, of that verdict
    {page}`a real base <real-base>`                       a link to a page; mere text without it

What is quoted links to the verdicts of the page that measured it; of a sentence, its first number
does, and a verdict is a chip. An unknown name without a question mark is a warning, and the strict
build takes warnings for errors; but what a page that was run with other parameters than the page
list's did not measure is said not to be there.
The cures: the engine emits a script twice; it sets quotes and dashes in names as in prose; it takes
titles for HTML, in its theme and on its search page; what it writes is not all accessible.
"""

import html
import json
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.search import IndexBuilder
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.docutils import ReferenceRole, SphinxRole

from crystal.present.figures import INK
from crystal.present.show import FIELDS, fmt
from crystal.present.verdicts import COLOURS, SIGNS

log = logging.getLogger(__name__)
NUMBER = re.compile(r"\d+ of \d+|(?<![\w.])[-−]?\d(?:[\d.,]*\d)?(?:e-?\d+)?(?: %)?(?! \d|\w)")
COLUMN = 530  # pixels, the most that a figure of a column's width takes
SCROLLS = """{
const boxes = ".sd-summary-content, .admonition > ul";  // the theme knows tables and code
const reach = () => document.querySelectorAll(boxes).forEach(
  box => box.toggleAttribute("tabindex", box.scrollHeight > box.clientHeight + 1)
    && (box.tabIndex = 0));
document.addEventListener("toggle", () => dispatchEvent(new Event("resize")), true);
for (const when of ["load", "resize"]) addEventListener(when, reach);
addEventListener("DOMContentLoaded", () =>  // of folds that follow each other one is open
  document.querySelectorAll("details.sd-dropdown").forEach((fold, number) =>
    fold.name = fold.previousElementSibling?.name || `folds-${number}`));
}"""
REPAIRS = (
    # A fold is called what stands on it; the sidebar's folds have nothing on them.
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (
        r'>([^<]*)(</a><details(?: open="open")?><summary>)',
        r'>\1\2<span class="visually-hidden">Pages of \1</span>',
    ),
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    (r'(<i class="theme-switch[^>]*?) title="[^"]*"', r"\1"),
    (r'(<div class="citation"[^>]*?) role="doc-biblioentry"', r'\1 role="listitem"'),
    # Without a choice of the reader's, the theme says an error before it takes the system's.
    (r'(localStorage\.getItem\("mode"\) \|\| )""', r'\1"auto"'),
)


def data(app: Sphinx, name: str) -> dict | list:
    """A file that the assembler put beside the book's sources."""
    return json.loads((Path(app.srcdir) / name).read_text(encoding="utf-8"))


def quote(claims: dict, name: str) -> str:
    """The text of `claim.field`, of a page's claims. Raises: KeyError naming what is unknown."""
    key, _, field = name.rpartition(".")
    record = claims[key]
    if field == "interval":
        return f"{fmt(record['low'])} to {fmt(record['high'])}"
    if field == "runs":
        chip = claims[key.replace("runs-", "all-", 1)]["verdict"].replace("-", " ")
        parts = (f"{chip} in", "of")
        alike, runs = (re.search(rf"{part} (\d+)", record["sentence"]) for part in parts)
        return f"in {alike[1]} of {runs[1]} runs" if alike else record["sentence"]
    if field not in FIELDS:
        raise KeyError(field)
    value = record[field]
    return value if isinstance(value, str) else fmt(value)


class Claim(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list]:
        page, _, name = self.text.removesuffix("?").partition("/")
        kept, found = f"claims/{page}.json", {"claims": {}, "elsewhere": []}
        if (Path(self.env.srcdir) / kept).is_file():
            self.env.note_dependency(kept)  # no other page changes this document
            found = data(self.env.app, kept)
        try:
            return self.linked(quote(found["claims"], name), page), []
        except KeyError as missing:
            if self.text.endswith("?"):
                return [nodes.inline(self.rawtext, "–")], []
            if found["elsewhere"]:
                said = f"(not in this run, with {' '.join(found['elsewhere'])})"
                return [nodes.inline(self.rawtext, said)], []
            where = self.get_location()
            log.warning("claim %r: %s is not in claims.json", self.text, missing, location=where)
            return [nodes.inline(self.rawtext, f"?{self.text}?")], []

    def linked(self, text: str, page: str) -> list[nodes.Node]:
        if text == "–":
            return [nodes.Text(text)]
        worded = self.text.removesuffix("?").endswith((".sentence", ".runs"))
        found = NUMBER.search(text) if worded else None
        start, end = found.span() if found else (0, len(text))
        document = page if page in self.env.found_docs else f"pages/{page}"
        uri = self.env.app.builder.get_relative_uri(self.env.docname, document) + "#verdicts"
        if text in SIGNS:
            look = f'style="background:{COLOURS[text]};color:{INK}" href="{uri}"'
            chip = f'<a class="chip" {look}>{SIGNS[text]} {text.replace("-", " ")}</a>'
            return [nodes.raw("", chip, format="html")]
        how = {"refuri": uri, "reftitle": "How this was computed", "internal": True}
        link = nodes.reference(self.rawtext, text[start:end], classes=["crystal-claim"], **how)
        return [nodes.Text(text[:start]), link, nodes.Text(text[end:])]


class Page(ReferenceRole):
    def run(self) -> tuple[list[nodes.Node], list]:
        text = nodes.inline(self.rawtext, self.title)
        there = [d for d in (f"pages/{self.target}", self.target) if d in self.env.found_docs]
        if not there:
            return [text], []
        how = {"refdomain": "std", "reftype": "doc", "refexplicit": True, "refwarn": True}
        target = {"reftarget": f"/{there[0]}", "refdoc": self.env.docname}
        return [addnodes.pending_xref(self.rawtext, text, **how, **target)], []


class AsWritten(SphinxTransform):
    """No typographic quotes and dashes on the reader's own pages: a name may hold either."""

    default_priority = 740  # before Sphinx sets them

    def apply(self, **kwargs: object) -> None:
        if self.env.docname in data(self.app, "own.json"):
            self.document["support_smartquotes"] = False


class Figures(SphinxTransform):
    """Figures are numbered by the page; one drawn for light and dark shows the one that the
    reader's theme asks for.

    A figure is as wide as its page, but not wider than its `width`, nor narrower than its class
    `least-<pixels>`, at which its smallest text can still be read. Beside one of a column's width
    there is room for its caption.
    """

    default_priority = 400

    def apply(self, **kwargs: object) -> None:
        captions = [c for c in self.document.findall(nodes.caption) if c.parent.tagname == "figure"]
        for number, caption in enumerate(captions, 1):
            called = nodes.inline("", f"Figure {number}. ", classes=["caption-number"])
            caption.insert(0, called)
        for image in list(self.document.findall(nodes.image)):
            least = next((c[6:] for c in image["classes"] if c.startswith("least-")), None)
            if least:
                image["classes"].remove(f"least-{least}")
                if int(image["width"].removesuffix("px")) <= COLUMN:
                    image.parent["classes"].append("column")
                image["width"] = f"clamp({least}px, 100%, {image['width']})"
            dark = image["uri"].removesuffix(".svg") + ".dark.svg"
            if (Path(self.env.srcdir) / dark.lstrip("/")).is_file():
                twin = image.deepcopy()
                twin["uri"] = dark
                twin["classes"].append("only-dark")
                image["classes"].append("only-light")
                image.parent.insert(image.parent.index(image) + 1, twin)


class Verdicts(SphinxTransform):
    """Each document has a place `verdicts`, to which quoted claims link: its verdicts, or its top;
    what is quoted inside a link is no link of its own.
    """

    default_priority = 400

    def apply(self, **kwargs: object) -> None:
        boxes = self.document.findall(nodes.admonition)
        places = [box for box in boxes if box[0].astext() == "Verdicts"]
        places += self.document.findall(nodes.section)
        if places and "verdicts" not in self.document.ids:
            places[0]["ids"].append("verdicts")
        for link in list(self.document.findall(nodes.reference)):
            around = link.parent
            while around is not None and "crystal-claim" in link["classes"]:
                if isinstance(around, nodes.reference | addnodes.pending_xref):
                    link.parent.replace(link, link.children)
                    break
                around = around.parent


def mend_context(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None
) -> None:
    """No live code here: Jupyter Book sets Thebe up twice, and a second `const` is a SyntaxError on
    every page. And the theme puts the title as it is into the head of what is printed.
    """
    context["script_files"] = [
        script
        for script in context.get("script_files", ())
        if "thebe" not in f"{script.filename} {script.attributes.get('body')}".lower()
    ]
    for name in {"pagetitle", "root_title"} & context.keys():
        context[name] = html.escape(context[name])


def escape_titles(freeze):
    """`IndexBuilder.freeze` with titles as the HTML that the search page takes them for."""

    def frozen(self: IndexBuilder) -> dict:
        index = freeze(self)  # of a later build, some titles were escaped before
        escaped = {
            html.escape(html.unescape(title)): found for title, found in index["alltitles"].items()
        }
        return {**index, "alltitles": escaped}

    return frozen


def no_numbers(app: Sphinx, config: Config) -> None:
    """The engine would number figures through the whole book."""
    config.numfig = False


def repair_pages(app: Sphinx) -> None:
    """Every page goes through `REPAIRS` before it is written."""
    templates = getattr(app.builder, "templates", None)
    if templates is None:  # no HTML is written
        return
    render = templates.render

    def mended(template: str, context: dict) -> str:
        page = render(template, context)
        for pattern, by in REPAIRS:
            page = re.sub(pattern, by, page)
        return page

    templates.render = mended


def setup(app: Sphinx) -> dict:
    IndexBuilder.freeze = escape_titles(IndexBuilder.freeze)
    for transform in (AsWritten, Figures, Verdicts):
        app.add_transform(transform)
    app.add_role("claim", Claim())
    app.add_role("page", Page())
    app.add_js_file(None, body=SCROLLS)  # what scrolls inside is reached by keyboard, too
    app.connect("html-page-context", mend_context, priority=900)
    app.connect("config-inited", no_numbers, priority=900)
    app.connect("builder-inited", repair_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
