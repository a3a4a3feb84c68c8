"""The reading rule as an automaton over bytes, and a whole vocabulary pushed through it."""

from __future__ import annotations

import codecs
import functools
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..ask.tasks import DIGIT_JOINERS, JOINERS, LEAD, Task
from ..errors import CrystalError
from .vocabulary import END, VOID

START = 0  # the state before anything but LEAD has been read
OFF = -1  # decided: no option
_WORD, _OTHER = "Жعא中あㄱ", "→∴◊※∎"  # of each kind, the first that no spelling holds is used


def option_code(k: int) -> int:
    """Of "decided: option k". Codes below zero are decided, others are states."""
    return -2 - k


class Characters(NamedTuple):
    """Tokens below a node, by the character that begins there."""

    low: np.ndarray  # (n,) ranges low .. high of ranks, ascending, whose character is of one kind
    high: np.ndarray
    word: np.ndarray  # (n,) bool: a letter or digit
    unfinished: list[tuple[int, int, bytes]]  # texts low .. own that end within it, by these bytes
    invalid: list[tuple[int, bytes]]  # nodes of no character, and the begun one before them


class Vocabulary:
    """The tokens in the order of their bytes, as a trie.

    order (tokens,): rank -> id; texts first, then END, then VOID. rank: its inverse. Node i holds
    the ranks low[i] .. high[i]; of these, low[i] .. own[i] end at it; its children are child[i] ..
    child[i + 1], in the order of their byte. pieces: per id its bytes, END or VOID.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """arrays: as `arrays_of` gives them."""
        self.order, self.ends = arrays["order"], int(arrays["ends"])
        self.low, self.high, self.byte, self.child, self.own = _trie(arrays)
        flat, end = arrays["bytes"].tobytes(), np.cumsum(arrays["length"]).tolist()
        texts, self.texts = [flat[a:b] for a, b in zip([0, *end], end)], len(end)
        self.rank = np.argsort(self.order)
        marks = [END] * (self.ends - self.texts) + [VOID] * (len(self.order) - self.ends)
        ranked = [*texts, *marks]
        self.pieces = [ranked[i] for i in self.rank.tolist()]
        self.characters = functools.cache(self.characters)

    def characters(self, node: int) -> Characters:
        """Below a node whose byte begins a character beyond ASCII."""
        left, whole, unfinished, invalid = [(node, bytes([self.byte[node]]))], [], [], []
        while left:
            at, text = left.pop()
            try:
                whole.append((self.low[at], self.high[at], text.decode().isalnum()))
            except UnicodeDecodeError as error:
                if error.reason != "unexpected end of data":
                    invalid.append((at, text[:-1]))
                    continue
                if self.low[at] < self.own[at]:
                    unfinished.append((self.low[at], self.own[at], text))
                below = range(self.child[at], self.child[at + 1])
                left += [(one, text + bytes([self.byte[one]])) for one in below]
        low, high, word = merged(np.array(whole, np.int64).reshape(-1, 3).T)
        return Characters(low, high, word == 1, unfinished, invalid)


def arrays_of(pieces: Sequence[object]) -> dict[str, np.ndarray]:
    """What makes a `Vocabulary`, to be kept; pieces: per token id its bytes, END or VOID."""
    ends, voids = ([i for i, p in enumerate(pieces) if p is mark] for mark in (END, VOID))
    ids = [i for i, p in enumerate(pieces) if isinstance(p, bytes)]
    ids.sort(key=pieces.__getitem__)
    texts = [pieces[i] for i in ids]
    return {
        "order": np.array([*ids, *ends, *voids], np.int64),
        "length": np.array([*map(len, texts)], np.int64),
        "bytes": np.frombuffer(b"".join(texts), np.uint8),
        "ends": np.array(len(ids) + len(ends)),
    }


def merged(ranges: np.ndarray) -> np.ndarray:
    """Ranges (3, n) of low, high, code: empty ones dropped, neighbours with one code joined."""
    ranges = ranges[:, ranges[0] < ranges[1]]
    ranges = ranges[:, np.argsort(ranges[0])].astype(np.int64)
    low, high, code = ranges
    first = np.concatenate([[True], (low[1:] != high[:-1]) | (code[1:] != code[:-1])])[: len(low)]
    last = np.concatenate([first[1:], [True]])[: len(low)]
    return np.stack([low[first], high[last], code[first]])


def _trie(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """(low, high, byte, child, own), breadth first."""
    length, flat = arrays["length"], arrays["bytes"]
    offset = np.cumsum(length) - length
    node = np.zeros(len(length), np.int64)  # of each text, at the present depth
    zero = np.zeros(1, np.int64)
    layers = [(zero, zero, np.array([len(length)]), np.zeros(1, np.uint8))]
    total, depth = 1, 0
    while (longer := np.flatnonzero(length > depth)).size:
        byte, at = flat[offset[longer] + depth], node[longer]
        first = np.concatenate([[True], (at[1:] != at[:-1]) | (byte[1:] != byte[:-1])])
        begin = np.flatnonzero(first)
        low, high = longer[begin], longer[np.concatenate([begin[1:], [len(longer)]]) - 1] + 1
        layers.append((at[begin], low, high, byte[begin]))
        node[longer] = total + np.cumsum(first) - 1
        total, depth = total + len(begin), depth + 1
    parent, low, high, byte = map(np.concatenate, zip(*layers, strict=True))
    child = np.searchsorted(parent[1:], np.arange(total + 1)) + 1
    # without a child, all its texts end at a node
    own = np.where(np.diff(child) > 0, low[np.minimum(child[:-1], total - 1)], high)
    return low, high, byte, child, own


class Automaton:
    """`crystal.ask.tasks.read`, one byte at a time.

    A state is (what was read after LEAD, case-folded; the bytes of an unfinished character). It
    lives while a continuation may change the answer: as a prefix of a spelling, or a spelling and a
    joiner ("1." may become "1.5"). States are numbered as they are met.
    """

    def __init__(self, task: Task) -> None:
        if not task.closed:
            what = f"task {task.name!r} has no list of options, so it has no read-out"
            raise CrystalError(what, hint="use `crystal sample`")
        if clumsy := [s for s in task.spellings if not s or s[0] in LEAD]:
            what = "start with white space, a quote or markup"
            raise CrystalError(f"spellings of task {task.name!r} {what}: {clumsy}")
        number = {option: k for k, option in enumerate(task.options)}
        self.task = task
        self.codes = {s: option_code(number[option]) for s, option in task.spellings.items()}
        self.prefixes = {s[:n] for s in self.codes for n in range(len(s) + 1)}
        used = set("".join(self.codes))
        self._wide = sorted(c for c in {*used, *LEAD, *JOINERS, *DIGIT_JOINERS} if ord(c) > 127)
        self._generic = [next(c for c in kind if c not in used) for kind in (_WORD, _OTHER)]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.states: list[tuple[str, bytes]] = [("", b"")]
        self._index = {("", b""): START}
        self._read_byte = functools.cache(self._read_byte)
        self._decoded = functools.cache(self._decoded)
        self._read_char = functools.cache(self._read_char)
        self._possible = functools.cache(self._possible)

    def step(self, states: np.ndarray, bytes_: np.ndarray) -> np.ndarray:
        """Codes one byte later: (n,) states, (n,) bytes -> (n,) int32."""
        pairs, which = np.unique(states * 256 + bytes_, return_inverse=True)
        codes = [self._read_byte(*divmod(pair, 256)) for pair in pairs.tolist()]
        return np.array(codes, np.int32)[which]

    def end(self, state: int) -> int:
        """The code if the answer ends here: an unfinished character is U+FFFD."""
        text, pending = self.states[state]
        text = self._read(text, pending.decode("utf-8", "replace"))
        return text if isinstance(text, int) else self._verdict(text)

    def within(self, state: int, pending: bytes) -> int:
        """The code after the first bytes of a character, from a state within none."""
        return self._settle(self.states[state][0], pending)

    def by_kind(self, state: int, lead: int) -> tuple[int, int] | None:
        """What a letter or digit, and what any other character decides, where these differ and
        nothing else matters of a character beyond ASCII with this first byte; else None.
        """
        text, pending = self.states[state]
        if pending or any(c.encode()[0] == lead for c in self._wide):
            return None
        word, other = (self._read_char(text, char) for char in self._generic)
        decided = isinstance(word, int) and isinstance(other, int)
        return (word, other) if decided and word != other else None

    def _read_byte(self, state: int, byte: int) -> int:
        text, pending = self.states[state]
        chars, pending = self._decoded(pending, byte)
        text = self._read(text, chars)
        return text if isinstance(text, int) else self._settle(text, pending)

    def _decoded(self, pending: bytes, byte: int) -> tuple[list[str], bytes]:
        """The characters that a byte completes, and what is unfinished then.

        One character that no spelling, joiner or LEAD holds stands for all of its kind.
        """
        self._decoder.setstate((pending, 0))
        chars, (word, other) = [], self._generic
        for char in self._decoder.decode(bytes([byte])):
            if not char.isascii() and char not in self._wide:
                char = word if char.isalnum() else other
            chars.append(char)
        return chars, self._decoder.getstate()[0]

    def _possible(self, pending: bytes) -> list[str]:
        """One character of each kind that matters and may begin with these bytes."""
        wide = [c for c in self._wide if c.encode().startswith(pending)]
        return [*self._generic, "\ufffd", *wide]

    def _settle(self, text: str, pending: bytes) -> int:
        """The state's number, or what is decided whatever the unfinished character becomes."""
        if pending:
            outcomes = {self._read_char(text, char) for char in self._possible(pending)}
            if len(outcomes) == 1 and isinstance(only := outcomes.pop(), int):
                return only
        key = (text, pending)
        if key not in self._index:
            self._index[key] = len(self.states)
            self.states.append(key)
        return self._index[key]

    def _read(self, text: str, chars: Iterable[str]) -> str | int:
        """The text that is still open, or the code of the decision."""
        for char in chars:
            text = self._read_char(text, char)
            if isinstance(text, int):
                break
        return text

    def _read_char(self, text: str, char: str) -> str | int:
        if not text and char in LEAD:
            return ""
        text += char.lower() if char.isascii() else char
        if text in self.prefixes:
            return text
        # a joiner behind a spelling: with a character to come, it may begin another word
        may_join = char in JOINERS or (char in DIGIT_JOINERS and text[-2:-1] in string.digits)
        return text if text[:-1] in self.codes and may_join else self._verdict(text)

    def _verdict(self, text: str) -> int:
        found = self.task.pattern.match(text)
        return self.codes[found[1]] if found else OFF


@dataclass(frozen=True)
class Row:
    """One state's tokens as ranks in `Vocabulary.order`; the halves hold every token once."""

    live: np.ndarray  # (a,) ranks that leave the answer open
    to: np.ndarray  # (a,) the states they lead to
    low: np.ndarray  # (r,) ranges low .. high of ranks that decide
    high: np.ndarray
    code: np.ndarray  # (r,) what each range decides

    @cached_property
    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """First ranks (a + r,), ascending, and the codes that hold up to the next one."""
        begin = np.concatenate([self.live, self.low])
        order = np.argsort(begin)
        return begin[order], np.concatenate([self.to, self.code])[order]


@dataclass
class Table:
    """What every token does in every state of a task."""

    vocabulary: Vocabulary
    automaton: Automaton

    def __post_init__(self) -> None:
        self.row = functools.cache(self.row)

    def row(self, state: int) -> Row:
        """Of one state; a subtree of the trie whose beginning decides is a range."""
        texts, ends, size = self.vocabulary.texts, self.vocabulary.ends, len(self.vocabulary.order)
        marks = [[texts, ends], [ends, size], [self.automaton.end(state), OFF]]
        seen = np.concatenate([marks, *map(np.stack, self._visit(state))], axis=1)
        low, high, code = seen[:, seen[2] >= 0]
        live, to = spans(low, high - low), np.repeat(code, high - low)
        order = np.argsort(live)
        live, to = live[order], to[order]
        low, high, code = merged(seen[:, seen[2] < 0])
        assert len(live) + (high - low).sum() == size, "a token is counted twice or not at all"
        return Row(live, to, low, high, code)

    def follow(self, states: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """Codes one token later: (n,) states, (n,) ranks -> (n,)."""
        found, which = np.unique(states, return_inverse=True)
        rows, size = [self.row(state) for state in found.tolist()], len(self.vocabulary.order)
        begin = np.concatenate([row.steps[0] + i * size for i, row in enumerate(rows)])
        at = np.searchsorted(begin, which * size + ranks, side="right") - 1
        return np.concatenate([row.steps[1] for row in rows])[at]

    def _visit(self, state: int) -> Iterator[tuple[np.ndarray, ...]]:
        """(low, high, code): texts that end at a node, then whole subtrees that are decided."""
        vocab, nodes, states = self.vocabulary, np.zeros(1, np.int64), np.array([state])
        while nodes.size:
            yield vocab.low[nodes], vocab.own[nodes], states
            count = vocab.child[nodes + 1] - vocab.child[nodes]
            nodes, states = spans(vocab.child[nodes], count), np.repeat(states, count)
            ranges, nodes, states = self._whole_characters(nodes, states)
            yield from ranges
            code = self.automaton.step(states, vocab.byte[nodes])
            done = code < 0
            yield vocab.low[nodes[done]], vocab.high[nodes[done]], code[done]
            nodes, states = nodes[~done], code[~done]

    def _whole_characters(
        self, nodes: np.ndarray, states: np.ndarray
    ) -> tuple[list[tuple[np.ndarray, ...]], np.ndarray, np.ndarray]:
        """Decide nodes (n,) that begin a character of which only the kind matters.

        Returns ranges as `_visit` gives them, and the nodes and states that are left.
        """
        vocab, ranges, more, done = self.vocabulary, [], [], []
        byte = vocab.byte[nodes]
        for i in np.flatnonzero((byte >= 0xC2) & (byte <= 0xF4)).tolist():
            state = int(states[i])
            if not (outcomes := self.automaton.by_kind(state, int(byte[i]))):
                continue
            done.append(i)
            found = vocab.characters(int(nodes[i]))
            ranges.append((found.low, found.high, np.where(found.word, *outcomes)))
            single = [(a, b, self.automaton.within(state, text)) for a, b, text in found.unfinished]
            ranges.append(tuple(np.array(single, np.int64).reshape(-1, 3).T))
            more += [(one, self.automaton.within(state, text)) for one, text in found.invalid]
        more = np.array(more, np.int64).reshape(-1, 2)
        nodes, states = np.delete(nodes, done), np.delete(states, done)
        return ranges, np.append(nodes, more[:, 0]), np.append(states, more[:, 1])


def spans(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start[0], start[0]+1, ... count[0] of them, then from start[1], ..."""
    begin = np.cumsum(count) - count
    return np.repeat(start - begin, count) + np.arange(int(count.sum()))
