"""Names from elsewhere are text, wherever they are shown: on a page, in a figure, in a CSV.

One small book is built from a table whose every field holds every kind of markup, beside a table of
the same shape with harmless names; a browser then looks at both.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from browser import CHROMIUM, WIDE, browser
from docutils import nodes
from docutils.core import publish_doctree
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import cbook
from matplotlib.figure import Figure
from myst_parser.parsers.docutils_ import Parser
from test_pages import template

from crystal import texts
from crystal.book import binding, pages, runs
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.present import show

REPOSITORY = Path(__file__).parent.parent
CONFIG = yaml.safe_load((REPOSITORY / "book/_config.yml").read_text())
EXTENSIONS = CONFIG["parse"]["myst_enable_extensions"]
SECRET = "canary-5f1e"  # what a file of the reader's machine holds
MARK = "document.documentElement.dataset.ran=1"  # what a script would do
MARKUP = (
    f"<script>{MARK}</script>",
    f"<img src=x onerror={MARK}>",
    f'"><svg onload={MARK}>',
    f"<a href=javascript:{MARK}>x</a>",
    "<!-- c",
    "&lt;b&gt; &amp; &#45; &copy;",
    "<b>b</b>",
    "{raw} html <hr>",
    "```{raw} html",
    "`````{include} {CANARY}",
    "```{literalinclude} {CANARY}",
    "{eval-rst} `x`_",
    "```{figure} {CANARY}",
    ":::{include} {CANARY}",
    "![x]({CANARY})",
    "[x](javascript:alert(1))",
    "[x]: /url",
    "<http://evil.example>",
    "www.evil.example",
    "https://evil.example/?a=1",
    "who@evil.example",
    "{abbr}`closed (c)`",
    "{abbr}`open",
    "{download}`{CANARY}`",
    "{claim}`plain/evil.sentence`",
    "`code`",
    "``",
    "$\\alpha^2$",
    "$$x$$",
    "$\\frac",
    "\\(\\href{javascript:alert(1)}{x}\\)",
    "\\begin{align}",
    "{{ title }}",
    "[^1]",
    "a | b",
    "|",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "% comment",
    "+++",
    "---",
    "===",
    "(target)=",
    ": term",
    "**b** _i_ ~~s~~",
    "שלום עולם",
    "😀 é",
    "\"q\" 'q' -- ... ---",
    "\\",
    "\\\\*",
    'C:\\new\\"x"',
    "=1+1",
    "+2",
    "-2+3",
    "@SUM(1)",
    "＝1",
    "'=1",
    "_hidden",
    "x" * 300,
    "a word " * 40,
    "$\\mathdefault{x}$",
    "http://",
    "{#id .class}",
    "[x]{.y}",
    "T\u00a0u",
)


def doctree(myst: str) -> nodes.document:
    """What the book's parser makes of it, by its own settings."""
    quiet = {"myst_enable_extensions": EXTENSIONS, "report_level": 5, "myst_suppress_warnings": []}
    return publish_doctree(myst, parser=Parser(), settings_overrides=quiet)


def shape(found: nodes.document) -> list[str]:
    return [type(node).__name__ for node in found.findall()]


@cache
def plain(myst: str) -> list[str]:
    """The shape of what holds no markup."""
    return shape(doctree(myst))


def shown(text: str) -> str:
    """As a browser and a parser show white space."""
    return re.sub("[ \n]+", " ", text).strip(" ")


PLACES = {
    "a paragraph": "{}",
    "a sentence": "a {} b",
    "a list": "- {}\n- x",
    "a heading": "# {}",
    "a table": "| a |\n|---|\n| {} |",
    "an admonition": "```{{admonition}} t\n{}\n```",
    "bold": "**{}**",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", MARKUP)
def test_markup_in_a_name_is_text_in(place, text):
    around = PLACES[place]
    found = doctree(around.format(texts.markdown(text)))
    assert shown(text) in shown(found.astext())
    assert shape(found) == plain(around.format("harmless"))


SIGNS = "`${}[]()<>|\\!#-+*_~:=%^&@\"'/ab1. \u00a0"


@given(st.text(st.sampled_from(SIGNS), min_size=1, max_size=24))
def test_any_row_of_signs_is_text(text):
    text = texts.name(text)
    for around in (PLACES["a paragraph"], PLACES["a table"]) if text else ():
        found = doctree(around.format(texts.markdown(text)))
        assert shape(found) == plain(around.format("a"))
        assert shown(found.astext()).endswith(shown(text))


@given(st.text(st.sampled_from("[]() ,.%-ab1"), min_size=1, max_size=12))
def test_any_cell_of_a_table_is_text(text):
    text = texts.name(text) or "a"
    found = doctree(show.table(["h"], [[text]]))
    assert shape(found) == plain(show.table(["h"], [["a"]]))
    assert shown(found.astext()).endswith(shown(text))


@pytest.mark.parametrize("text", MARKUP)
def test_code_shows_what_it_was_given(text):
    for around in ("{}", "| a |\n|---|\n| {} |"):
        found = doctree(around.format(texts.code(repr(text))))
        assert shown(repr(text)) in shown(found.astext())
        assert {*shape(found)} - {"literal"} == {*plain(around.format("a"))}


@pytest.mark.parametrize("text", MARKUP)
def test_a_figure_shows_a_name_and_no_formula(text):
    found = texts.label(text)
    assert not cbook.is_math_text(found) and len(found.replace(r"\$", "$")) <= 61
    fig = Figure()
    ax = fig.subplots()
    ax.plot([1], label=found)
    ax.set(title=found, ylabel=texts.label(text, wide=9))
    ax.set_xticks([0], [found])
    assert len(ax.legend().get_texts()) == 1
    fig.draw_without_rendering()


def test_of_a_long_name_both_ends_are_shown():
    assert texts.label("first" + "x" * 300 + "last").startswith("firstxx")
    assert texts.label("first" + "x" * 300 + "last").endswith("xxlast")


@pytest.mark.parametrize("text", MARKUP)
def test_no_cell_of_a_csv_is_a_formula(text):
    found = texts.cell(text)
    assert found.lstrip("'")[:1] not in "=+-@＝＋－＠" or found[0] == "'" or texts.is_number(found)
    assert texts.uncell(found) == text


@pytest.mark.parametrize("text", MARKUP)
def test_a_table_and_a_list_are_text(text):
    table, listed = show.table([text, "b"], [[text, 1]]), show.listed([text, "b"])
    assert shape(doctree(table)) == plain(show.table(["a", "b"], [["a", 1]]))
    assert shape(doctree(listed)) == plain(show.listed(["a", "b"]))


# -- a book ----------------------------------------------------------------------------------------

PLAIN = """from matplotlib.figure import Figure
import pandas as pd
from crystal.present import show
from crystal.texts import markdown
show.begin("plain", a=a, told=told)
for n, text in enumerate(told):
    fig = Figure()
    show.emit(fig, f"f-{n}", alt=f"alt {text}", caption=f"Caption {markdown(text)}",
              data=pd.DataFrame({text: [text, 1.5], "n": [n, -1]}))
    show.claim(f"evil-{n}", ladder="", task=text, verdict="holds", sentence=text)
    show.prose(f"{{claim}}`plain/evil-{n}.sentence`")
show.verdicts()
show.parameters()
show.prose("```{csv-table}\\n:file: /pages.csv\\n:header-rows: 1\\n```")
show.prose("$$\\nE = mc^2\\n$$")
"""
HOSTILE_FILE = f'$$x$$ \\(y\\) {{raw}}`a <img src=x onerror={MARK}> & [b](c) -- "q".csv'
STAGE = f"<img src=x onerror={MARK}> `{{raw}}|$x$"


def rows(names: list[str], stages: list[str], spare: str):
    """Every name is a ladder, a task, a prompt, a unit, an option and a column without a use."""
    yield [
        "ladder",
        "stage",
        "task",
        "prompt",
        "unit",
        "option",
        "count",
        *(f"{name}{spare}" for name in names),
    ]
    for n, ladder in enumerate(names):
        near = [names[(n + k) % len(names)] for k in range(4)]
        for s, stage in enumerate(stages):
            for t, task in enumerate(near[:2]):
                for p, prompt in enumerate(near[:2]):
                    for o, option in enumerate(near):
                        count = 0 if o == 3 else 5 + (7 * n + 3 * s + 5 * t + 2 * p + 11 * o) % 23
                        yield [
                            ladder,
                            stage,
                            task,
                            prompt,
                            near[p + 2],
                            option,
                            count,
                            *[""] * len(names),
                        ]


def write(path: Path, table) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> list[str]:
    """Every kind of markup as a name; where it asks for a file, there is one."""
    canary = tmp_path_factory.mktemp("canary") / "canary.txt"
    canary.write_text(SECRET)
    return list(dict.fromkeys(texts.name(text.replace("{CANARY}", str(canary))) for text in MARKUP))


@pytest.fixture(scope="module")
def site(tmp_path_factory, names) -> Path:
    """Root of the built book: a page of all that `show` can put there, a hostile, a harmless."""
    root, mine = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("mine")
    for folder in ("notebooks", "requirements", "data/ladders"):
        (root / folder).mkdir(parents=True)
    unused = shutil.ignore_patterns("*.md", "own.yml*", "__pycache__")
    shutil.copytree(REPOSITORY / "book", root / "book", ignore=unused)
    for name in (pages.LOCK, "notebooks/phases.ipynb"):
        shutil.copy(REPOSITORY / name, root / name)
    (root / pages.SPINE).write_text(
        yaml.safe_dump(
            {"root": {"id": "plain", "template": "plain", "title": "Plain"}, "parts": []}
        )
    )
    template(
        root / "notebooks/plain.ipynb", 'a: str = "x"  # any\ntold: list[str] = []  # texts', PLAIN
    )
    harmless = [f"name{n}" for n in range(len(names))]
    write(mine / HOSTILE_FILE, rows(names, [STAGE, "sft"], "?"))
    write(mine / "harmless.csv", rows(harmless, ["first", "sft"], "?"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTAL_ROOT", str(root))
        patch.chdir(mine)
        tables = (HOSTILE_FILE, STAGE, names), ("harmless.csv", "first", harmless)
        for file, stage, ladders in tables:
            some = ",".join(ladders[:9])
            given = [f"stages=base={stage}", "permutations=19", f"only={some}"]
            assert main(["page", "phases", *given, "--data", file]) == 0
        runs.run(pages.get("plain"), {"a": " ".join(names), "told": names})
        assert binding.build() == binding.index()  # strict: it found nothing to warn of
        yield root


def page_ids() -> tuple[str, str]:
    own = [page.id for page in pages.page_list().values() if page.listed == pages.OWN]
    return own[0], own[1]


def test_nothing_of_another_file_is_in_the_book(site):
    book = site / "_build/html"
    files = [path for path in book.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert [path for path in files if path.name.startswith("canary")] == []
    hosts = Path("/etc/hostname").read_text().strip() if Path("/etc/hostname").is_file() else ""
    assert not hosts or hosts not in (book / "plain.html").read_text()


def test_no_csv_of_the_book_holds_a_formula(site):
    tables = list((site / "_build/pages").rglob("*.csv"))
    assert len(tables) > 6
    for path in tables:
        cells = [cell for row in csv.reader(path.open(encoding="utf-8")) for cell in row]
        assert [c for c in cells if c[:1] in tuple("=+-@＝") and not texts.is_number(c)] == []


def test_claims_keep_names_as_they_are(site, names):
    found = json.loads((pages.get(page_ids()[0]).folder / "claims.json").read_text())
    assert {claim["ladder"] for claim in found.values()} == set(names[:9])
    told = json.loads((pages.get("plain").folder / "claims.json").read_text())
    assert [claim["sentence"] for claim in told.values()] == names


@pytest.mark.parametrize("bad", ["a\nb.csv", "a\x1b[31m.csv", "a\u202eb.csv"])
def test_control_characters_in_a_file_name_are_refused(site, tmp_path, bad):
    (tmp_path / bad).write_text("")
    with pytest.raises(CrystalError, match="holds a control character"):
        pages.page_of("phases", str(tmp_path / bad))


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


def look(tab, path: Path, search: str = "") -> None:
    """Open a document of the book; nothing ran on it, and nothing but the book was asked for."""
    tab.open(path.as_uri() + search)
    root = (path.parents[1] if path.parent.name == "pages" else path.parent).as_uri()
    assert [url for url in tab.requests if not url.startswith((root, "data:image/svg"))] == []
    assert tab.run("document.documentElement.dataset.ran") is None


without_browser = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium here: nobody looked whether a name of a table runs a script"
)
# but for where captions stand: below figures that long names widen
ELEMENTS = """[...document.querySelectorAll("article *:not(code):not(code *)")]
    .map(e => e.tagName + "." + [...e.classList].filter(c => c != "column").join("."))"""
CELLS = '[...document.querySelectorAll("article td, article th")].map(e => e.textContent.trim())'
LINKS = '[...document.querySelectorAll("a")].map(a => a.getAttribute("href") || "")'
CAPTIONS = """[...document.querySelectorAll("figure .caption-text")].map(
    e => e.textContent.replace(/^Figure [0-9]+[.] /, ""))"""
RESTED = "new Promise(done => setTimeout(done, 300))"
TYPESET = re.compile(r"""["'\\&]|--|\.\.\.""")  # a page of ours sets these as its prose


@without_browser
def test_a_hostile_table_makes_the_page_of_a_harmless_one(site, tab):
    """Neither is wider than the window."""
    made = []
    for id in page_ids():
        look(tab, site / f"_build/html/{binding.document(id)}.html")
        made.append(Counter(tab.run(ELEMENTS)))
        for width in (390, 1280):
            tab.resize(width)
            tab.run(RESTED)
            assert tab.run(WIDE) <= 0
        tab.call("Emulation.clearDeviceMetricsOverride")
    assert made[0] == made[1]


@without_browser
def test_names_stand_on_the_page_as_they_are(site, tab, names):
    look(tab, site / f"_build/html/{binding.document(page_ids()[0])}.html")
    cells, text = tab.run(CELLS), tab.run('document.querySelector("article").innerText')
    assert {shown(name) for name in names[:9]} <= set(map(shown, cells))
    read = shown(text)
    columns = [
        name for name in names if f"{shown(name)}?" in read
    ]  # without a use: the first are named
    assert len(columns) > 8 and "more" in read
    assert f"{shown(STAGE)} as base" in read
    title = HOSTILE_FILE.removesuffix(".csv")
    assert tab.run("document.title").startswith(title)
    headings = tab.run('[...document.querySelectorAll("h1")].map(e => e.firstChild.textContent)')
    assert set(headings) == {title}
    assert tab.run('document.querySelectorAll("mjx-container").length') == 0
    assert [link for link in tab.run(LINKS) if re.match("javascript|http|mailto|file", link)] == []


@without_browser
def test_all_that_show_puts_there_is_text(site, tab, names):
    look(tab, site / "_build/html/plain.html")
    alts = tab.run('[...document.querySelectorAll("figure img")].map(e => e.alt)')
    assert alts == [f"alt {name}" for name in names for _ in ("light", "dark")]
    captions = tab.run(CAPTIONS)
    assert len(captions) == len(names)
    heights = tab.run('[...document.querySelectorAll("figcaption")].map(e => e.offsetHeight)')
    assert min(heights) > 0  # the theme hides captions beside the other theme's picture
    for name, caption in zip(names, captions, strict=True):
        if not TYPESET.search(name):
            assert shown(caption).startswith(shown(f"Caption {name} Plotted"))
    assert "Other parameters than in the book" in tab.run("document.body.innerText")
    assert tab.run('document.querySelectorAll("mjx-container").length') == 1  # the equation
    assert [link for link in tab.run(LINKS) if re.match("javascript|http|mailto|file", link)] == []


@without_browser
def test_the_search_page_shows_titles_as_text(site, tab):
    title = HOSTILE_FILE.removesuffix(".csv")
    for asked in ("onerror", title):
        look(tab, site / "_build/html/search.html", f"?q={quote(asked)}")
        assert title in tab.run('document.querySelector("#search-results").innerText')
        assert tab.run('document.querySelectorAll("#search-results img").length') == 0
