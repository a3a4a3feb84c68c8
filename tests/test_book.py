"""A strict build of a small book: one page per phase, every other page and all prose."""

from __future__ import annotations

import csv
import json
import os
import posixpath
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import papermill
import pytest
import yaml
from browser import CHROMIUM, axe, browser
from test_figures import too_long

from crystal.book import binding, pages, runs
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.present import show
from crystal.present.show import fmt

REPOSITORY = Path(__file__).parent.parent
TASK = "digit"
LOADS = {
    ("script", "src"),
    ("img", "src"),
    ("link", "href"),
    ("iframe", "src"),
    ("source", "src"),
    ("object", "data"),
}


class Elements(HTMLParser):
    """Every start tag of a document with its attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, {name: value or "" for name, value in attrs}))


def small(spine: dict) -> dict:
    """The page list with the phase pages of one task only."""
    for row in (r for part in spine["parts"] for r in pages.rows(part["chapters"])):
        row["pages"] = [
            inner
            for inner in row.get("pages", ())
            if inner.get("params", {}).get("task", TASK) == TASK
        ]
    return spine


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Root of the small book, built."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(REPOSITORY / "book", folder / "book")
    for name in ("notebooks", "data", "requirements"):
        (folder / name).symlink_to(REPOSITORY / name)
    spine = small(yaml.safe_load((folder / pages.SPINE).read_text()))
    (folder / pages.SPINE).write_text(yaml.safe_dump(spine))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTAL_ROOT", str(folder))
        assert set(runs.run_all(say=lambda line: None)) == set(pages.page_list())
        assert binding.build() == folder / "_build/html/index.html"
        yield folder


@pytest.fixture(scope="module")
def html(site) -> dict[str, Elements]:
    """Every document of the built book, by its path."""
    folder = site / "_build/html"
    return {
        path.relative_to(folder).as_posix(): Elements(path)
        for path in folder.rglob("*.html")
        if "_static" not in path.parts
    }


def test_every_page_and_chapter_is_in_the_book_once(site, html):
    spine = pages.spine()
    listed = [
        spine["root"],
        *(row for part in spine["parts"] for row in pages.rows(part["chapters"])),
    ]
    expected = {
        f"{binding.document(row['id']) if 'id' in row else row['file']}.html" for row in listed
    }
    assert len(expected) == len(listed)
    assert html.keys() - {"genindex.html", "search.html"} == expected


def test_figures_are_numbered_and_have_caption_alt_text_and_data(site, html):
    emitted = {
        (page.id, path.stem)
        for page in pages.page_list().values()
        for path in page.folder.glob("*.svg")
        if not path.stem.endswith(".dark")
    }
    assert {id.split("-")[0] for id, _ in emitted} >= {
        "index",
        "liquid",
        "nucleation",
        "settling",
        "overview",
    }
    for id, name in emitted:
        document = site / f"_build/html/{binding.document(id)}.html"
        figure = re.search(
            rf'<figure[^>]*id="fig-{id}-{name}".*?</figure>', document.read_text(), re.S
        )[0]
        assert re.search(r'class="caption-number">Figure \d+\.', figure)
        assert len(re.search(r'<img alt="([^"]+)"', figure)[1]) > 20
        assert (
            len(
                re.sub(
                    "<[^>]+>",
                    "",
                    re.search(r'class="caption-text">(.*?)</figcaption>', figure, re.S)[1],
                )
            )
            > 20
        )
        download = re.search(r'href="([^"]+/' + name + r'\.csv)"', figure)[1]
        assert (document.parent / download).resolve().read_bytes() == (
            pages.get(id).folder / f"{name}.csv"
        ).read_bytes()
        for theme in ("light", "dark"):
            assert f'class="dark-light only-{theme}' in figure


def test_figures_are_numbered_by_the_page_and_tasks_listed_under_their_phase(site):
    for document in (site / "_build/html").glob("pages/*.html"):
        numbers = re.findall(r'class="caption-number">Figure (\d+)', document.read_text())
        assert numbers == [str(i + 1) for i in range(len(numbers))]
    assert (
        f'href="pages/liquid-{TASK}.html">{TASK}</a>'
        in (site / "_build/html/liquid.html").read_text()
    )


def test_sections_of_the_third_level_are_folds():
    told = ["## A", "text", "### B\nmore", "a figure", "`````{dropdown} Parameters\n`````"]
    cells = [binding._prose(str(n), text) for n, text in enumerate(told)]
    shown = [cell["source"] for cell in binding._folded(cells)]
    assert shown[:2] == told[:2] and shown[3:] == told[4:]
    assert shown[2].startswith("::::::::{dropdown} B\n")
    assert shown[2].endswith("\n\nmore\n\na figure\n\n::::::::")


def test_the_first_page_says_a_verdict_and_its_runs_once(site):
    page = (site / "_build/html/index.html").read_text()
    cells = [re.sub("<[^>]+>|\\s+", " ", cell) for cell in re.findall("<td.*?</td>", page, re.S)]
    runs = [cell for cell in cells if re.search(r"\d of \d", cell)]
    assert runs
    for cell in runs:
        assert re.fullmatch(r" *\W (holds|fails|undecided|not reached) +in +\d of \d +runs *", cell)


def test_a_quoted_number_is_no_part_of_a_name(site):
    quoted = re.compile(r'class="crystal-claim[^>]*>([^<]*)</a>(\w?)')
    for path in (site / "_build/html").glob("*.html"):
        assert [found for found in quoted.findall(path.read_text()) if found[1]] == [], path


def test_captions_and_verdicts_are_short(site):
    for page in pages.page_list().values():
        for path in page.folder.glob("*.json"):
            about = json.loads(path.read_text())
            if "caption" in about:
                assert not too_long(about["caption"], 40), path
        if (page.folder / "claims.json").is_file():
            for name, claim in json.loads((page.folder / "claims.json").read_text()).items():
                assert not too_long(claim["sentence"], 100), (page.id, name)


def test_text_in_figures_can_be_read_on_a_telephone(site):
    for page in pages.page_list().values():
        document = (site / f"_build/html/{binding.document(page.id)}.html").read_text()
        for path in page.folder.glob("*.svg"):
            if not path.stem.endswith(".dark"):
                svg = path.read_text()
                points = float(re.search(r'width="([\d.]+)pt"', svg)[1])
                figure = re.search(rf'id="fig-{page.id}-{path.stem}".*?</figure>', document, re.S)
                least = float(re.search(r"width: clamp\((\d+)px, 100%, \d+px\)", figure[0])[1])
                assert show.smallest(svg) * least / points >= 9, path


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_missing(site, html):
    for name, elements in html.items():
        for tag, attributes in elements.found:
            for attribute in (a for t, a in LOADS if t == tag and a in attributes):
                target = attributes[attribute].split("?")[0].split("#")[0]
                unloaded = tag == "link" and attributes.get("rel") not in (
                    "stylesheet",
                    "icon",
                    "preload",
                )
                if unloaded or target.startswith("data:"):
                    continue
                assert not re.match(r"(https?:)?//", target), (name, target)
                assert ((site / "_build/html" / name).parent / unquote(target)).exists(), (
                    name,
                    target,
                )
    assert [name for name in html if "unpkg" in (site / "_build/html" / name).read_text()] == []


def test_links_inside_the_book_lead_to_a_place_that_is_there(site, html):
    book = site / "_build/html"
    places = {name: [a["id"] for _, a in e.found if "id" in a] for name, e in html.items()}
    assert {name for name, ids in places.items() if len(ids) > len({*ids})} == set()
    for name, elements in html.items():
        for target in (a["href"] for tag, a in elements.found if tag == "a" and "href" in a):
            if not re.match(r"\w+:", target):
                path, _, place = map(unquote, target.partition("#"))
                there = posixpath.normpath(f"{posixpath.dirname(name)}/{path}") if path else name
                there = there.removeprefix("/")
                assert (book / there).exists(), (name, target)
                assert not place or place in places.get(there, [place]), (name, target)


def test_a_downloaded_notebook_runs_in_a_folder_of_its_own(site, tmp_path, monkeypatch):
    taken = json.loads((site / "_build/html/_sources/pages/tasks.ipynb").read_text())
    code = [cell for cell in taken["cells"] if cell["cell_type"] == "code"]
    assert "git clone" in code[0]["source"] and not any(cell["outputs"] for cell in code)
    (tmp_path / "taken.ipynb").write_text(json.dumps(taken))
    monkeypatch.chdir(tmp_path)
    papermill.execute_notebook("taken.ipynb", "ran.ipynb", progress_bar=False)
    assert list(tmp_path.glob("_build/interactive/tasks/*.json"))


def test_style_sheets_load_nothing_from_elsewhere(site):
    sheets = list((site / "_build/html").rglob("*.css"))
    assert sheets
    assert [
        s.name
        for s in sheets
        if re.search(r"(@import\s+|url\()['\"]?(https?:)?//", s.read_text(encoding="utf-8"))
    ] == []


def test_verdicts_stand_on_their_pages(site):
    for phase in ("liquid", "nucleation", "settling"):
        claims = json.loads((pages.get(f"{phase}-{TASK}").folder / "claims.json").read_text())
        judged = [claim for claim in claims.values() if claim["verdict"] != "measured"]
        text = re.sub(
            "<[^>]+>|\\s+", " ", (site / f"_build/html/pages/{phase}-{TASK}.html").read_text()
        )
        assert judged
        for claim in judged:
            assert re.search(rf"{claim['verdict']} \W+ {claim['claim']}", re.sub(" +", " ", text))


def test_nothing_changed_nothing_done(site, capsys):
    before = (site / "_build/html/index.html").stat().st_mtime_ns
    assert main(["reproduce"]) == 0
    assert "0 pages executed" in (said := capsys.readouterr().out) and "book unchanged" in said
    assert (site / "_build/html/index.html").stat().st_mtime_ns == before


def test_an_unknown_claim_fails_the_build(site):
    chapter = site / "book/reading.md"
    text, before = chapter.read_text(), (site / "_build/html/reading.html").read_bytes()
    chapter.write_text(text + "\n{claim}`liquid-digit/no-such-claim.number`\n")
    with pytest.raises(CrystalError, match="liquid-digit/no-such-claim.number.*not in claims.json"):
        binding.build()
    assert (site / "_build/html/reading.html").read_bytes() == before
    chapter.write_text(text)
    assert binding.build() is None


def test_prose_quotes_claims(site):
    id = f"liquid-{TASK}"
    claims = json.loads((pages.get(id).folder / "claims.json").read_text())
    key = next(key for key, claim in claims.items() if claim["verdict"] != "measured")
    chapter = site / "book/reading.md"
    text = chapter.read_text()
    verdict, number, interval = (
        f"{{claim}}`{id}/{key}.{field}`" for field in ("verdict", "number", "interval")
    )
    chapter.write_text(text + f"\nIt {verdict} at {number} [{interval}].\n")
    assert main(["page", "tasks"]) == 0  # re-renders what changed
    built = (site / "_build/html/reading.html").read_text()
    shown = re.sub("<[^>]+>", "", built)
    word = claims[key]["verdict"].replace("-", " ")
    assert f"{word} at {fmt(claims[key]['number'])} [" in shown
    measured, place = re.search(r'crystal-claim[^>]*href="([^"#]+)#([^"]+)"', built).groups()
    assert f'id="{place}"' in (site / "_build/html" / measured).read_text()
    chapter.write_text(text)


def test_a_page_with_other_parameters_says_so(site, capsys):
    page, built = pages.get(f"settling-{TASK}"), site / f"_build/html/pages/settling-{TASK}.html"
    assert main(["page", page.id, "quantile=0.8"]) == 0
    assert "Other parameters than in the book" in built.read_text()
    assert main(["page", page.id, "--why"]) == 0
    assert "parameter quantile: 0.8 -> 0.9" in capsys.readouterr().out
    assert main(["reproduce"]) == 0
    assert "1 pages executed" in capsys.readouterr().out
    assert "Other parameters than in the book" not in built.read_text()


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here: nobody looked at the pages")
def test_every_page_is_sound_in_both_themes_at_every_width(request, tmp_path):
    """Offline, from its file. CRYSTAL_BOOK=_build/html: all pages of a book that is there."""
    there = os.environ.get("CRYSTAL_BOOK")
    book = Path(there or request.getfixturevalue("site") / "_build/html").resolve()
    documents = {p for p in book.rglob("*.html") if p.relative_to(book).parts[0][0] != "_"}
    assert book / "index.html" in documents
    script = axe()
    with browser(tmp_path) as tab:
        found = {path.name: tab.faults(path.as_uri(), script) for path in sorted(documents)}
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_the_explorer_shows_the_numbers_that_other_pages_claim(site):
    text = (site / "_build/pages/explorer/explorer.csv").read_text(encoding="utf-8")
    rows = {
        (row["ladder"], row["checkpoint"], row["form"], row["task"]): row
        for row in csv.DictReader(text.splitlines())
    }
    said = json.loads((site / f"_build/pages/nucleation-{TASK}/claims.json").read_text())
    for ladder in ("nano-llama", "nano-olmo2"):
        for name, checkpoint, form in (("the-base", "base", "completion"), ("sft", "sft", "chat")):
            claim = said[f"liquidity-of-{name}-these-personas-bits@{ladder}"]
            found = float(rows[ladder, checkpoint, form, TASK]["mutual_information"])
            assert found == pytest.approx(claim["number"], abs=1e-9)


def test_only_the_explorer_loads_its_scripts(site, html):
    loading = [
        name
        for name, elements in html.items()
        if any("vega" in attributes.get("src", "") for _, attributes in elements.found)
    ]
    assert loading == ["pages/explorer.html"]
