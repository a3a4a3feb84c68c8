"""What the book needs of its engine: roles that quote claims and link pages, and cures for some of its habits.

    {claim}`liquid-digit/liquidity@nano-llama.number`     the number, formatted
    {claim}`liquid-digit/liquidity@nano-llama.verdict`    holds, fails, undecided, measured
    {claim}`liquid-digit/liquidity@nano-llama.interval`   low to high
    {claim}`overview/collapse@tulu3-8b.sentence?`         the same, or a dash where nobody measured it
    {page}`a real base <real-base>`                       a link to a page; mere text where the book lacks it

An unknown name without a question mark is a warning, and the strict build takes warnings for errors; but what a page that was
run on other ladders than the page list's did not measure is said not to be there.
The cures: it emits a script twice; it sets quotes and dashes in names as in prose; it takes titles
for HTML, in its theme and on its search page.
"""

import html
import json
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.search import IndexBuilder
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.docutils import ReferenceRole, SphinxRole

from crystal.present.show import FIELDS, fmt

log = logging.getLogger(__name__)


def quote(claims: dict, name: str) -> str:
    """The text of `page/claim.field` from the merged claims; raises KeyError naming the part that is unknown."""
    page, _, rest = name.partition("/")
    key, _, field = rest.rpartition(".")
    record = claims[page][key]
    if field == "interval":
        return f"{fmt(record['low'])} to {fmt(record['high'])}"
    if field not in FIELDS:
        raise KeyError(field)
    value = record[field]
    return value if isinstance(value, str) else fmt(value)


class Claim(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list]:
        self.env.note_dependency("claims.json")
        self.env.note_dependency("elsewhere.json")
        claims = json.loads((Path(self.env.srcdir) / "claims.json").read_text(encoding="utf-8"))
        shown = json.loads((Path(self.env.srcdir) / "elsewhere.json").read_text(encoding="utf-8")).get(self.text.partition("/")[0])
        try:
            return [nodes.inline(self.rawtext, quote(claims, self.text.removesuffix("?")), classes=["crystal-claim"])], []
        except KeyError as missing:
            if self.text.endswith("?"):
                return [nodes.inline(self.rawtext, "–")], []
            if shown:
                return [nodes.inline(self.rawtext, f"(not in this run, which shows {', '.join(shown)})")], []
            log.warning("claim %r: %s is not in claims.json", self.text, missing, location=self.get_location())
            return [nodes.inline(self.rawtext, f"?{self.text}?")], []


class Page(ReferenceRole):
    def run(self) -> tuple[list[nodes.Node], list]:
        text = nodes.inline(self.rawtext, self.title)
        if f"pages/{self.target}" not in self.env.found_docs:
            return [text], []
        link = addnodes.pending_xref(
            self.rawtext, text, refdomain="std", reftype="doc", refexplicit=True, refwarn=True,
            reftarget=f"/pages/{self.target}", refdoc=self.env.docname)
        return [link], []


def drop_thebe(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """No live code here: Jupyter Book sets Thebe up twice, and a second `const` is a SyntaxError on every page."""
    context["script_files"] = [script for script in context.get("script_files", ())
                               if "thebe" not in f"{script.filename} {script.attributes.get('body')}".lower()]


class AsWritten(SphinxTransform):
    """No typographic quotes and dashes on the reader's own pages: a name may hold either."""

    default_priority = 740  # before Sphinx sets them

    def apply(self, **kwargs: object) -> None:
        own = json.loads((Path(self.env.srcdir) / "own.json").read_text(encoding="utf-8"))
        if self.env.docname in own:
            self.document["support_smartquotes"] = False


class BothThemes(SphinxTransform):
    """A figure drawn for light and dark shows the one that the reader's theme asks for.

    It is as wide as its page, but not wider than its `width`, nor narrower than its class
    `least-<pixels>`, at which its smallest text can still be read.
    """

    default_priority = 400

    def apply(self, **kwargs: object) -> None:
        for image in list(self.document.findall(nodes.image)):
            least = next((c[6:] for c in image["classes"] if c.startswith("least-")), None)
            if least:
                image["classes"].remove(f"least-{least}")
                image["width"] = f"clamp({least}px, 100%, {image['width']})"
            dark = image["uri"].removesuffix(".svg") + ".dark.svg"
            if (Path(self.env.srcdir) / dark.lstrip("/")).is_file():
                twin = image.deepcopy()
                twin["uri"] = dark
                twin["classes"].append("only-dark")
                image["classes"].append("only-light")
                image.parent.insert(image.parent.index(image) + 1, twin)


def escape_titles(freeze):
    """`IndexBuilder.freeze` with titles as the HTML that the search page takes them for."""
    def frozen(self: IndexBuilder) -> dict:
        index = freeze(self)  # of a later build, some titles were escaped before
        escaped = {html.escape(html.unescape(title)): found
                   for title, found in index["alltitles"].items()}
        return {**index, "alltitles": escaped}

    return frozen


def escape_title(app: Sphinx, pagename: str, templatename: str, context: dict,
                 doctree: nodes.document | None) -> None:
    """The theme puts the title as it is into the head of what is printed."""
    for name in {"pagetitle", "root_title"} & context.keys():
        context[name] = html.escape(context[name])


def setup(app: Sphinx) -> dict:
    IndexBuilder.freeze = escape_titles(IndexBuilder.freeze)
    app.add_transform(AsWritten)
    app.add_transform(BothThemes)
    app.add_role("claim", Claim())
    app.add_role("page", Page())
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", escape_title, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
