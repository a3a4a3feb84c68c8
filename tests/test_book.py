"""A strict build of a small book: one page per phase, every other page and all prose."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from crystal.book import binding, pages, runs
from crystal.cli import main
from crystal.errors import CrystalError
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
        assert re.search(r'class="caption-number">Fig\. \d+', figure)
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
    shown = re.sub("<[^>]+>", "", (site / "_build/html/reading.html").read_text())
    assert f"It {claims[key]['verdict']} at {fmt(claims[key]['number'])} [" in shown
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


def test_the_explorer_shows_the_numbers_that_other_pages_claim(site):
    text = (site / "_build/pages/explorer/explorer.csv").read_text(encoding="utf-8")
    rows = {
        (row["ladder"], row["rung"], row["form"], row["task"]): row
        for row in csv.DictReader(text.splitlines())
    }
    said = json.loads((site / f"_build/pages/nucleation-{TASK}/claims.json").read_text())
    for ladder in ("nano-llama", "nano-olmo2"):
        for name, rung, form in (("the-base", "base", "completion"), ("sft", "sft", "chat")):
            claim = said[f"liquidity-of-{name}-these-narrators-bits@{ladder}"]
            found = float(rows[ladder, rung, form, TASK]["mutual_information"])
            assert found == pytest.approx(claim["number"], abs=1e-9)


def test_only_the_explorer_loads_its_scripts(site, html):
    loading = [
        name
        for name, elements in html.items()
        if any("vega" in attributes.get("src", "") for _, attributes in elements.found)
    ]
    assert loading == ["pages/explorer.html"]


CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.mark.skipif(
    not CHROMIUM, reason="no chromium here: nobody looked whether equations render and scripts run"
)
@pytest.mark.parametrize(
    "document", ["index", "quantities", f"pages/nucleation-{TASK}", "pages/explorer"]
)
def test_a_browser_without_network_renders_it_from_the_file(site, tmp_path, document):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=20000",
        "--dump-dom",
        f"file://{site}/_build/html/{document}.html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    equations = len(re.findall(r'class="math notranslate', done.stdout))
    assert len(re.findall("<mjx-container", done.stdout)) >= equations
    assert document != "quantities" or equations > 10
    assert not re.search('<[^>]*data-mml-node="merror"|Math Processing Error', done.stdout)
    assert [
        line
        for line in done.stderr.splitlines()
        if ":CONSOLE" in line and re.search("rror|ERR_", line)
    ] == []
