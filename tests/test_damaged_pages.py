"""Page lists and templates, damaged in any byte or of any other type: the same pages, or a sentence."""

from __future__ import annotations

import copy
import random
import shutil
from pathlib import Path

import pytest
import yaml

from crystal.book import freshness, pages
from crystal.errors import CrystalError

REPOSITORY = Path(__file__).parent.parent
ODD = (None, 7, -1.5, True, "", "x", "../x", "a\0b", [], {}, ["x"], {"id": 3}, [[]], {"x": {"y": []}}, "2026-01-01")


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """The book's list and templates, to be damaged."""
    root = tmp_path_factory.mktemp("house")
    for folder in ("book", "notebooks", "requirements", "data/ladders"):
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns("_*", "*.md", "own.yml"))
    return root


@pytest.fixture(autouse=True)
def here(house, monkeypatch):
    monkeypatch.setenv("CRYSTAL_ROOT", str(house))


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One byte flipped, set, put in or taken out, or the end cut off."""
    place = rng.randrange(len(content))
    head, byte, tail = content[:place], content[place], content[place + 1:]
    return rng.choice([head + bytes([byte ^ 1 << rng.randrange(8)]) + tail, head + bytes([rng.randrange(256)]) + tail,
                       head + tail, head + bytes([rng.randrange(256), byte]) + tail, head])


def swapped(value: object, rng: random.Random) -> object:
    """The same with one node, at any depth, replaced by something odd."""
    nodes: list[tuple[object, object]] = []

    def walk(node: object) -> None:
        for key, inner in list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()):
            nodes.append((node, key))
            walk(inner)

    walk(value := copy.deepcopy(value))
    node, key = rng.choice(nodes)
    node[key] = rng.choice(ODD)
    return value


def pages_or_sentence(file: str) -> None:
    """The page list is read, and the template of that name, if it is one; or a sentence names the file."""
    try:
        for page in pages.page_list().values():
            if page.notebook.name == file:
                pages.parameters(page.notebook)
                freshness.imported(page.notebook)
    except CrystalError as error:
        assert error.mend and "Traceback" not in str(error)
        assert file in str(error) or error.where or "page" in str(error), str(error)


@pytest.mark.parametrize("file", ["book/pages.yml", "book/own.yml"])
def test_any_damage_to_a_page_list_is_a_sentence(house, file):
    """Seed 3; 60 damaged files and 60 with a node of another type."""
    rng, path = random.Random(3), house / file
    row = {"id": "mine", "template": "phases", "title": "Mine", "params": {"data": "x.csv", "only": ["a"]}, "reads": ["data/*"]}
    whole = path.read_bytes() if path.exists() else yaml.safe_dump([row]).encode()
    for _ in range(60):
        for content in (damaged(whole, rng), yaml.safe_dump(swapped(yaml.safe_load(whole), rng)).encode()):
            path.write_bytes(content)
            pages_or_sentence(path.name)
    path.write_bytes(whole)
    pages_or_sentence(path.name)
    path.unlink() if file.endswith("own.yml") else None


def test_any_damage_to_a_template_is_a_sentence(house):
    """Seed 4; 100 damaged notebooks."""
    rng = random.Random(4)
    for path in rng.choices(sorted((house / "notebooks").glob("*.ipynb")), k=100):
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, rng))
        pages_or_sentence(path.name)
        path.write_bytes(whole)
