"""Pages of the reader's own: a row of book/own.yml, kept fresh, gone when the row is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from test_pages import template

from crystal import files
from crystal.book import binding, pages, runs
from crystal.cli import main
from crystal.errors import CrystalError

REPOSITORY = Path(__file__).parent.parent
SPINE = {
    "root": {"id": "index", "template": "plain", "title": "Index"},
    "parts": [
        {"title": "Part", "chapters": [{"id": "plain", "template": "plain", "title": "Plain"}]}
    ],
}
PARAMETERS = 'data: str = ""  # a table of answers\nquantile: float = 0.9  # share\n'
BODY = """from crystal.present import show
from crystal.tables.table import read_table
show.begin("distributions", data=data, quantile=quantile)
show.prose(f"There are {len(read_table(data).frame)} distributions.")
"""
TABLE = "stage,task,prompt,option,probability\n" + "".join(
    f"{stage},t,p,{option},0.5\n" for stage in ("base", "sft") for option in "ab"
)


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A repository of two pages that takes tables; commands run in a folder beside it."""
    root, mine = tmp_path / "repository", tmp_path / "mine"
    for folder in (mine, root / "notebooks", root / "requirements", root / "data/ladders"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("CRYSTAL_ROOT", str(root))
    monkeypatch.chdir(mine)
    shutil.copytree(
        REPOSITORY / "book",
        root / "book",
        ignore=shutil.ignore_patterns("*.md", "own.yml*", "__pycache__"),
    )
    shutil.copy(REPOSITORY / pages.LOCK, root / pages.LOCK)
    (root / pages.SPINE).write_text(yaml.safe_dump(SPINE))
    template(
        root / "notebooks/plain.ipynb",
        'a: str = ""  # any',
        'from crystal.present import show\nshow.begin("plain", a=a)',
    )
    template(root / "notebooks/distributions.ipynb", PARAMETERS, BODY)
    (mine / "My answers.csv").write_text(TABLE)
    return root


@pytest.fixture
def stamped(site, monkeypatch) -> Path:
    """The same, with no kernel started and no book built."""
    monkeypatch.setattr(
        runs, "alone", lambda run, *task: run(*task)
    )  # here, so that the next line counts
    monkeypatch.setattr(
        runs, "_execute", lambda page, work, inputs: (work / "page.ipynb").write_text("{}")
    )
    monkeypatch.setattr(binding, "build", lambda whole=True: None)
    return site


def listed(site: Path) -> list[dict]:
    return yaml.safe_load((site / pages.OWN).read_text())


def document(site: Path, id: str) -> str:
    return (site / f"_build/html/{binding.document(id)}.html").read_text()


def test_from_a_table_to_the_book_and_away(site, capsys):
    assert main(["page", "distributions", "--data", "My answers.csv"]) == 0
    assert "the book needs the other pages, too: make reproduce" in capsys.readouterr().out
    path = str(site.parent / "mine/My answers.csv")
    assert listed(site) == [
        {
            "id": "distributions-my-answers",
            "template": "distributions",
            "title": "My answers",
            "params": {"data": path},
        }
    ]
    assert main(["reproduce"]) == 0
    assert "2 pages executed" in capsys.readouterr().out  # the others: the first is fresh already
    assert "There are 2 distributions." in document(site, "distributions-my-answers")
    assert "Your ladders" in document(site, "plain") and "My answers" in document(site, "plain")

    (site.parent / "mine/more.csv").write_text(
        TABLE + TABLE.partition("\n")[2].replace(",p,", ",q,")
    )
    assert (
        main(["page", "distributions", "--data", "more.csv", "quantile=0.5"]) == 0
    )  # it stands in all contents
    assert "There are 4 distributions." in document(
        site, "distributions-more"
    ) and "distributions-more" in document(site, "plain")
    assert listed(site)[1]["params"]["quantile"] == 0.5 and not runs.why(
        pages.get("distributions-more")
    )
    assert "Other parameters than in the book" not in document(site, "distributions-more")

    rows = listed(site)
    (site / pages.OWN).write_text(yaml.safe_dump(rows[1:]))
    assert main(["reproduce"]) == 0
    assert (
        not (site / "_build/html/pages/distributions-my-answers.html").exists()
        and not (site / "_build/pages/distributions-my-answers").exists()
    )
    assert "distributions-my-answers" not in document(
        site, "plain"
    ) and "distributions-more" in document(site, "plain")


def test_the_page_is_stale_when_its_table_changes_and_only_then(stamped, capsys):
    assert main(["page", "distributions", "--data", "My answers.csv"]) == 0
    for id in SPINE["root"]["id"], "plain":
        runs.run(pages.get(id))
    path = Path("My answers.csv").absolute()
    path.write_text(TABLE.replace("0.5", "0.50"))
    assert runs.why(pages.get("distributions-my-answers")) == [f"file {path} changed"]
    assert [page.id for page in pages.page_list().values() if runs.why(page)] == [
        "distributions-my-answers"
    ]
    runs.run(pages.get("distributions-my-answers"))
    assert not any(map(runs.why, pages.page_list().values()))
    path.unlink()
    capsys.readouterr()
    assert main(["reproduce"]) == 2
    assert re.search(
        r"the table '.*My answers.csv', which is not there \(book/own.yml\).*or delete the row",
        capsys.readouterr().err,
    )


def test_a_table_under_the_root_is_named_from_there(stamped):
    (stamped / "data/my.csv").write_text(TABLE)
    assert main(["page", "distributions", "--data", str(stamped / "data/my.csv")]) == 0
    assert listed(stamped)[0]["params"] == {"data": "data/my.csv"}
    page = pages.get("distributions-my")
    assert runs.fingerprint(page)["files"].keys() == {"data/my.csv"}
    (stamped / pages.SPINE).write_text(
        yaml.safe_dump(
            {
                **SPINE,
                "parts": [
                    {
                        "title": "P",
                        "chapters": [
                            {
                                "id": "l",
                                "template": "distributions",
                                "title": "L",
                                "params": {"data": "data/../data/my.csv"},
                                "reads": ["data/*.csv"],
                            }
                        ],
                    }
                ],
            }
        )
    )
    assert runs.fingerprint(pages.get("l"))["files"].keys() == {"data/my.csv"}


def test_a_list_of_tables_counts_too_and_no_table_is_none(stamped):
    template(stamped / "notebooks/many.ipynb", "tables: list[str] = []  # tables", "1")
    (stamped / "data/a.csv").write_text("a")
    page = pages.Page(id="m", template="many", title="M", params={"tables": ["data/a.csv"]})
    assert runs.fingerprint(page)["files"].keys() == {"data/a.csv"}
    assert runs.fingerprint(page, {"tables": []})["files"] == {}
    with pytest.raises(
        CrystalError,
        match=r"page 'm' names the table 'data/b.csv', which is not there \(book/pages.yml\)",
    ):
        runs.fingerprint(page, {"tables": ["data/a.csv", "data/b.csv"]})


def test_the_same_name_takes_the_place_of_the_old_row(stamped, capsys):
    other = stamped.parent / "my-answers.csv"
    other.write_bytes(b"x")
    (stamped.parent / "mine/z.csv").write_text(TABLE)
    for table in ("My answers.csv", "z.csv", str(other)):
        assert main(["page", "distributions", "--data", table]) == 0
    assert [(row["id"], row["title"]) for row in listed(stamped)] == [
        ("distributions-my-answers", "my-answers"),
        ("distributions-z", "z"),
    ]
    assert listed(stamped)[0]["params"]["data"] == str(other)
    assert (
        f"it takes the place of the page of {stamped.parent / 'mine/My answers.csv'}"
        in capsys.readouterr().out
    )
    assert not list((stamped / "book").glob("*.tmp"))


def test_a_page_that_fails_leaves_no_row(site, capsys):
    Path("bad.csv").write_text(TABLE.replace("0.5", "0.7"))
    assert main(["page", "distributions", "--data", "bad.csv"]) == 2
    said = "page distributions-bad was not made: the probabilities of the group sum to 1.4"
    assert said in capsys.readouterr().err
    assert not (site / pages.OWN).exists() and pages.page_list().keys() == {"index", "plain"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["distribution", "My answers.csv"],
            "unknown template that takes a table 'distribution', did you mean 'distributions'",
        ),
        (["plain", "My answers.csv"], "unknown template that takes a table 'plain'"),
        (["distributions", "none.csv"], "there is no table 'none.csv'"),
        (["distributions", ""], "there is no table ''.*make page TEMPLATE=distributions DATA="),
        (
            ["distributions", "My answers.csv", "quantil=1"],
            "unknown parameter of distributions-my-answers 'quantil'",
        ),
        (["distributions", "My answers.csv", "quantile=much"], "parameter quantile wants float"),
        (["distributions", "My answers.csv", "data=x.csv"], "the table is named twice"),
        (["distributions", "表.csv"], "no letter or digit for a page to be called by"),
        (
            ["distributions", "taken.csv"],
            r"the book has a page 'distributions-taken' already \(book/pages.yml\)",
        ),
    ],
)
def test_bad_arguments_are_a_sentence(stamped, capsys, arguments, said):
    (stamped / pages.SPINE).write_text(
        yaml.safe_dump(
            {
                **SPINE,
                "parts": [
                    {
                        "title": "P",
                        "chapters": [
                            {"id": "distributions-taken", "template": "distributions", "title": "T"}
                        ],
                    }
                ],
            }
        )
    )
    for name in ("表.csv", "taken.csv"):
        Path(name).write_text(TABLE)
    template_, table, *given = arguments
    assert main(["page", template_, *given, "--data", table]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (stamped / pages.OWN).exists() and not (stamped / "_build").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {id: a", "broken YAML"),
        ("id: a\n", "must be a list"),
        ("- a\n", "must be a mapping"),
        (
            "- {id: a, template: distributions}\n",
            r"page 'a' lacks the field 'title' \(book/own.yml\)",
        ),
        (
            "- {id: plain, template: distributions, title: T}\n",
            r"page 'plain' is listed twice \(book/own.yml\)",
        ),
        (
            "- {id: a, template: gone, title: T}\n",
            r"no template notebooks/gone.ipynb \(book/own.yml\)",
        ),
    ],
)
def test_a_list_that_somebody_spoilt_is_a_sentence(stamped, text, said):
    (stamped / pages.OWN).write_text(text)
    with pytest.raises(CrystalError, match=said):
        pages.page_list()


def test_no_rows_make_no_part(stamped):
    assert pages.spine() == SPINE
    (stamped / pages.OWN).write_text("# nothing\n")
    assert pages.spine() == SPINE
    (stamped / pages.OWN).write_text("- {id: a, template: distributions, title: A}\n")
    assert [part["caption"] for part in binding.contents()["parts"]] == ["Part", "Your ladders"]
    assert binding.contents()["parts"][1]["chapters"] == [{"file": "pages/a"}]


def test_a_full_disk_leaves_the_old_list(stamped, monkeypatch):
    assert main(["page", "distributions", "--data", "My answers.csv"]) == 0
    before = (stamped / pages.OWN).read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(CrystalError, match="could not be written.*No space left"):
        pages.put(pages.Page(id="b", template="plain", title="B"))
    assert (stamped / pages.OWN).read_bytes() == before and not list(
        (stamped / "book").glob("*.tmp")
    )


def test_names_of_tables_as_ids():
    assert pages.slug(Path("Tülu_3 (8B).csv")) == "tulu-3-8b"
    assert pages.slug(Path("a.b.jsonl")) == "a-b"
