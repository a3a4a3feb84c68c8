"""A hash for every file that pages read and no manifest covers."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from crystal.cli import main
from crystal.errors import CrystalError
from crystal.keep import sums

FILES = {
    "data/published/a.csv": b"x,y\n1,2\n",
    "data/bench/b.json": b"{}\n",
    "data/ladders/hub/c.yaml": b"name: c\n",
    "data/validation/trials.jsonl": b"{}\n",
    "notebooks/n.ipynb": b"{}\n",
    "book/pages.yml": b"root: {}\n",
}
OTHERS = (
    "data/samples/l/manifest.jsonl",
    "data/draws/l/shards/a.parquet",
    "book/own.yml",
    "book/index.md",
    "data/weights/l/sft-16/config.json",
    "data/bench/.hidden",
    "data/bench/b.json.tmp",
)


@pytest.fixture
def house(tmp_path, monkeypatch) -> Path:
    """A repository of a few files, recorded."""
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    for name in (*FILES, *OTHERS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(FILES.get(name, b"other"))
    assert sums.record() == len(FILES)
    return tmp_path


def test_what_is_recorded_in_this_repository_is_true():
    """Whoever changes such a file on purpose says `crystal verify --record`."""
    assert sums.differences() == {}
    new = sums.there().keys() - sums.recorded().keys()
    assert not [name for name in new if not name.startswith("data/ladders/hub/")]


def test_every_flipped_cut_or_lost_byte_is_found(house):
    rng = random.Random(7)
    for name, content in FILES.items():
        for _ in range(20):
            place = rng.randrange(len(content))
            flipped = (
                content[:place]
                + bytes([content[place] ^ 1 << rng.randrange(8)])
                + content[place + 1 :]
            )
            for damaged in (flipped, content[:place]):
                (house / name).write_bytes(damaged)
                assert [sentence.split()[0] for sentence in sums.problems()] == [name]
        (house / name).unlink()
        assert sums.problems()[0].startswith(f"{name} is missing")
        (house / name).write_bytes(content)
    assert sums.problems() == []


def test_a_damaged_list_never_passes(house):
    path = house / sums.LIST
    content, rng = path.read_bytes(), random.Random(8)
    for _ in range(200):
        place = rng.randrange(len(content))
        for damaged in (
            content[:place],
            content[:place]
            + bytes([content[place] ^ 1 << rng.randrange(8)])
            + content[place + 1 :],
        ):
            path.write_bytes(damaged)
            with pytest.raises(CrystalError, match="hashes|UTF-8"):
                sums.problems()
    path.unlink()
    assert "there is no list" in sums.problems()[0]


def test_verify_says_what_changed_and_takes_it_in(house, capsys):
    for kind in ("samples", "draws"):  # of no ladder
        shutil.rmtree(house / "data" / kind)
    (house / "notebooks/n.ipynb").write_text("{ }\n")
    (house / "data/mine.csv").write_text("new")
    assert main(["verify"]) == 2
    said = capsys.readouterr()
    assert "not as recorded: notebooks/n.ipynb; make verify" in sums.note()
    assert (
        "notebooks/n.ipynb is not what was recorded" in said.out and "verify --record" in said.out
    )
    assert "1 faults" in said.err
    assert main(["verify", "--record"]) == 0
    assert sums.recorded()["data/mine.csv"] and sums.problems() == [] and sums.note() == ""


def test_what_a_command_writes_is_taken_in_and_nothing_else(house):
    (house / "book/pages.yml").write_text("broken")
    with pytest.raises(KeyboardInterrupt), sums.keeping():
        (house / "data/bench/b.json").write_text("{ }")
        (house / "data/bench/new.json").write_text("{}")
        (house / "data/published/a.csv").unlink()
        raise KeyboardInterrupt
    assert sums.differences() == {"book/pages.yml": "is not what was recorded"}
    assert (
        "data/bench/new.json" in sums.recorded() and "data/published/a.csv" not in sums.recorded()
    )


def test_without_a_list_nothing_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    (tmp_path / "data").mkdir()
    with sums.keeping():
        (tmp_path / "data/a").write_text("a")
    assert not (tmp_path / sums.LIST).exists()
