"""A tokenizer's tokens as bytes, sorted into a trie; a large one is kept in a cache.

Numpy only: knows no model, and no tokenizer. A token is the bytes it stands for, because half a
character has no text of its own.

    Pieces          the bytes of every token id, looked up when they are asked for
    Vocabulary      the tokens in the order of their bytes, a trie of ranges
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import cache, write_file

END = object()  # marks a token that ends the answer, in place of its bytes
VOID = (
    object()
)  # marks an id that stands for no text at all (padding of the output layer): always OFF
_MARKS = (None, END, VOID)
_TEXT, _END, _VOID = range(3)
LARGE = 20_000  # tokens from which on a vocabulary is kept: a smaller one is made in no time
VERSION = 1  # of what a kept file holds, and of how bytes are found and checked


@dataclass(frozen=True, eq=False)
class Pieces(Sequence[object]):
    """Per token id its bytes, END or VOID."""

    kind: np.ndarray  # (ids,) uint8: 0 text, 1 END, 2 VOID
    offset: np.ndarray  # (ids + 1,) where an id's bytes begin in `flat`
    flat: np.ndarray  # (bytes,) uint8

    @classmethod
    def of(cls, pieces: Iterable[object]) -> Pieces:
        pieces = list(pieces)
        kind = np.array(
            [_TEXT if isinstance(p, bytes) else _MARKS.index(p) for p in pieces], np.uint8
        )
        texts = [p if isinstance(p, bytes) else b"" for p in pieces]
        offset = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        return cls(kind, offset, np.frombuffer(b"".join(texts), np.uint8))

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, i: int) -> object:
        if self.kind[i] != _TEXT:
            return _MARKS[self.kind[i]]
        i = range(len(self))[i]
        return self.flat[self.offset[i] : self.offset[i + 1]].tobytes()


@dataclass(frozen=True)
class Characters:
    """Tokens below a node, by the character that begins there."""

    low: np.ndarray  # (n,) ranges low .. high of ranks, ascending, whose character is of one kind
    high: np.ndarray
    word: np.ndarray  # (n,) bool: a letter or digit
    unfinished: list[tuple[int, int, bytes]]  # texts low .. own that end within it, by these bytes
    invalid: list[tuple[int, bytes]]  # nodes, and their bytes, that are of no character


class Vocabulary:
    """The tokens in the order of their bytes, as a trie in which every node is a range of ranks.

    `order` (tokens,) rank -> id; texts first, then END, then VOID. `rank` (tokens,) is its inverse.
    """

    def __init__(
        self, pieces: Iterable[object], made: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """pieces: per token id its bytes, END or VOID. made: the arrays, where they are known."""
        self.pieces = pieces if isinstance(pieces, Pieces) else Pieces.of(pieces)
        made = made or _made(self.pieces)
        self.order, self.low, self.high, self.byte = (
            made[name] for name in ("order", "low", "high", "byte")
        )
        self.child = made["child"]  # children of node i: child[i] .. child[i + 1]
        self.own = made["own"]  # texts low .. own end exactly at the node
        self.rank = np.empty_like(self.order)
        self.rank[self.order] = np.arange(len(self.order))
        self.texts, ends, _ = np.bincount(self.pieces.kind, minlength=3).tolist()
        self.ends = self.texts + ends
        self._characters: dict[int, Characters] = {}

    def characters(self, node: int) -> Characters:
        """The tokens below a node whose byte begins a character beyond ASCII, by that character."""
        if node not in self._characters:
            self._characters[node] = self._by_character(node)
        return self._characters[node]

    def _by_character(self, node: int) -> Characters:
        left, whole, unfinished, invalid = [(node, bytes([self.byte[node]]))], [], [], []
        while left:
            at, text = left.pop()
            try:
                whole.append((self.low[at], self.high[at], text.decode().isalnum()))
            except UnicodeDecodeError as error:
                if error.reason != "unexpected end of data":
                    invalid.append((at, text))
                    continue
                if self.low[at] < self.own[at]:
                    unfinished.append((self.low[at], self.own[at], text))
                below = range(self.child[at], self.child[at + 1])
                left += [(one, text + bytes([self.byte[one]])) for one in below]
        low, high, word = np.array(sorted(whole), np.int64).reshape(-1, 3).T
        first = np.append(True, (low[1:] != high[:-1]) | (word[1:] != word[:-1]))[: len(low)]
        last = np.append(first[1:], True)[: len(low)]
        return Characters(low[first], high[last], word[first] == 1, unfinished, invalid)

    def to_bytes(self) -> bytes:
        """The file of a kept vocabulary; `from_bytes` is its inverse."""
        file, pieces = io.BytesIO(), self.pieces
        np.savez(
            file,
            kind=pieces.kind,
            offset=pieces.offset,
            flat=pieces.flat,
            order=self.order,
            low=self.low,
            high=self.high,
            byte=self.byte,
            child=self.child,
            own=self.own,
        )
        return _sum(file.getvalue()) + file.getvalue()

    @classmethod
    def from_bytes(cls, blob: bytes) -> Vocabulary | None:
        """None for a file that is damaged: its first 32 bytes are the digest of the others."""
        if _sum(blob[32:]) != blob[:32]:
            return None
        found = np.load(io.BytesIO(blob[32:]), allow_pickle=False)
        return cls(Pieces(found["kind"], found["offset"], found["flat"]), found)


def kept(parts: Sequence[str], size: int, make: Callable[[], Vocabulary]) -> Vocabulary:
    """A vocabulary from the cache; else made, and kept if it is of LARGE size.

    parts: everything it rests on. size: its tokens. A damaged file is made again; a cache that
    cannot be written is no failure.
    """
    if size < LARGE:
        return make()
    file = place("vocabulary", parts)
    try:
        found = Vocabulary.from_bytes(file.read_bytes())
    except OSError:
        found = None
    return found or _keep(file, make())


def place(kind: str, parts: Sequence[str]) -> Path:
    """Where what rests on `parts` is kept."""
    digest = hashlib.sha256(
        "\0".join([kind, str(VERSION), *parts]).encode("utf-8", "surrogatepass")
    )
    return cache() / "vocabularies" / digest.hexdigest()


def _keep(file: Path, made: Vocabulary) -> Vocabulary:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, made.to_bytes())
    except OSError:
        pass
    return made


def _sum(blob: bytes) -> bytes:
    return hashlib.sha256(blob).digest()


def _made(pieces: Pieces) -> dict[str, np.ndarray]:
    ids = np.flatnonzero(pieces.kind == _TEXT)
    texts = [pieces[i] for i in ids.tolist()]
    up = np.array(sorted(range(len(texts)), key=texts.__getitem__), np.int64)
    marks = [np.flatnonzero(pieces.kind == kind) for kind in (_END, _VOID)]
    return {"order": np.concatenate([ids[up], *marks]), **_trie([texts[i] for i in up.tolist()])}


def _trie(texts: list[bytes]) -> dict[str, np.ndarray]:
    """The trie of sorted texts, breadth first; children of a node are consecutive, in the order of
    their byte.
    """
    length = np.array([len(t) for t in texts], np.int64)
    offset = np.concatenate([[0], np.cumsum(length)])
    flat = np.frombuffer(b"".join(texts), np.uint8)
    node = np.zeros(len(texts), np.int64)  # of each text, at the present depth
    layers = [
        (
            np.zeros(1, np.int64),
            np.zeros(1, np.int64),
            np.array([len(texts)]),
            np.zeros(1, np.uint8),
        )
    ]
    total, depth = 1, 0
    while (longer := np.flatnonzero(length > depth)).size:
        byte = flat[offset[longer] + depth]
        first = np.concatenate(
            [[True], (node[longer][1:] != node[longer][:-1]) | (byte[1:] != byte[:-1])]
        )
        begin = np.flatnonzero(first)
        low, high = longer[begin], longer[np.concatenate([begin[1:], [len(longer)]]) - 1] + 1
        layers.append((node[longer[begin]], low, high, byte[begin]))
        node[longer] = total + np.cumsum(first) - 1
        total, depth = total + len(begin), depth + 1
    parent, low, high, byte = map(np.concatenate, zip(*layers, strict=True))
    child = np.searchsorted(parent[1:], np.arange(total + 1)) + 1
    own = np.where(
        np.diff(child) > 0, low[np.minimum(child[:-1], total - 1)], high
    )  # no child: all of them
    return {"low": low, "high": high, "byte": byte, "child": child, "own": own}
