"""The archive: whole or not there, the same bytes from the same files, nothing of the reader's."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from crystal.book import binding
from crystal.errors import CrystalError
from crystal.keep import sums

FILES = {
    "_build/html/index.html": '<a href="pages/a.html">a</a>',
    "_build/html/pages/a.html": "a",
    "_build/source/pages.csv": "page\na\n",
    "book/pages.yml": "root: {}\n",
    "data/README.md": "what the data is",
    "CITATION.cff": "title: a\n",
    "LICENSE": "mine",
    "README.md": "read me",
    "crystal/a.py": "",
    "crystal/__pycache__/a.pyc": "",
    "notes.txt": "the reader's own",
}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A tiny repository with a book, its data recorded."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    sums.record()
    (tmp_path / "data/own.csv").write_text("the reader's own")
    return tmp_path


def test_the_archive_holds_book_data_and_where_they_come_from(root, tmp_path):
    with zipfile.ZipFile(binding.pack()) as archive:
        assert archive.testzip() is None
        held = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    own = {"data/SHA256SUMS", "SHA256SUMS", "provenance/pages.csv"}
    left = {"notes.txt", "data/own.csv", "crystal/__pycache__/a.pyc", "_build/source/pages.csv"}
    told = {name.replace("_build/html", "html") for name in FILES if name not in left}
    assert held.keys() == told | own
    listed = dict(line.split("  ")[::-1] for line in held["SHA256SUMS"].decode().splitlines())
    assert listed == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in held.items()
        if name != "SHA256SUMS"
    }


def test_the_same_files_give_the_same_bytes(root):
    before = binding.pack().read_bytes()
    for path in root.rglob("*"):
        os.utime(path, (0, 0))
    assert binding.pack().read_bytes() == before


def test_a_half_written_archive_is_never_taken_for_whole(root, monkeypatch):
    before, ends = binding.pack().read_bytes(), binding._with_sums()

    def torn():
        yield next(ends)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(binding, "_with_sums", torn)
    with pytest.raises(CrystalError, match="could not be written.*free disk space"):
        binding.pack()
    assert [path.name for path in (root / "_build").glob("crystal-*")] == [binding.NAME + ".zip"]
    assert (root / f"_build/{binding.NAME}.zip").read_bytes() == before


def test_nothing_is_packed_that_is_not_as_recorded(root):
    (root / "data/README.md").write_text("something else")
    with pytest.raises(CrystalError, match="data/README.md is not what was recorded"):
        binding.pack()
    assert not list((root / "_build").glob("crystal-*"))


def test_pages_of_the_readers_own_are_not_published(root):
    (root / "book/own.yml").write_text("[]")
    with pytest.raises(CrystalError, match="pages of your own.*mv book/own.yml"):
        binding.pack()
