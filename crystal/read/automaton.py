"""The reading rule as an automaton over bytes, and a tokenizer's whole vocabulary pushed through it.

Numpy only: knows no model.

    Automaton       task -> what every byte does to an answer that is still being read
    Table           both: which tokens leave an answer open, and which decide it, as ranges of sorted tokens
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..ask.tasks import DIGIT_JOINERS, JOINERS, LEAD, Task
from ..errors import CrystalError
from .vocabulary import Vocabulary

START = 0  # the state before anything but LEAD has been read
OFF = -1  # decided: no option
_UNKNOWN = np.iinfo(np.int32).min
_WORD, _OTHER = "Жعא中あㄱ", "→∴◊※∎"  # any word character, any other: the first that no spelling holds is used


def option_code(k: int) -> int:
    """The code of "decided: option number k". Codes below zero are decided, others are states."""
    return -2 - k


class Automaton:
    """`crystal.ask.tasks.read`, one byte at a time.

    A state is (what was read after LEAD, case-folded; the bytes of an unfinished character). It lives as long as some
    continuation changes the answer: while it is a prefix of a spelling, or a spelling and a joiner ("1." may become "1.5").
    States are numbered as they are met, so only those a vocabulary reaches exist.
    """

    def __init__(self, task: Task) -> None:
        if not task.closed:
            raise CrystalError(f"task {task.name!r} has no list of options, so it has no read-out", mend="use `crystal sample`")
        clumsy = [s for s in task.spellings if not s or s[0] in LEAD]
        if clumsy:
            raise CrystalError(f"spellings of task {task.name!r} start with white space, a quote or markup: {clumsy}")
        number = {option: k for k, option in enumerate(task.options)}
        self.task = task
        self.codes = {spelling: option_code(number[option]) for spelling, option in task.spellings.items()}
        self.prefixes = {s[:n] for s in self.codes for n in range(len(s) + 1)}
        used = set("".join(self.codes))
        self._wide = sorted({c for c in {*used, *LEAD, *JOINERS, *DIGIT_JOINERS} if ord(c) > 127})
        self._generic = [next(c for c in kind if c not in used) for kind in (_WORD, _OTHER)] + ["\ufffd"]
        self.states: list[tuple[str, bytes]] = [("", b"")]
        self._index = {("", b""): START}
        self._next = np.full((64, 256), _UNKNOWN, np.int32)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._wide_leads = {c.encode()[0] for c in self._wide}
        self._reachable: dict[str, np.ndarray] = {}
        self._spelt: dict[tuple[bytes, int], tuple[list[str], bytes]] = {}
        self._outcomes: dict[tuple[str, str], str | int] = {}
        self._possible: dict[bytes, list[str]] = {}

    def run(self, text: bytes) -> int:
        """The code of a whole answer: `option_code(k)` or OFF."""
        state = self.follow(START, text)
        return state if state < 0 else self.end(state)

    def step(self, states: np.ndarray, bytes_: np.ndarray) -> np.ndarray:
        """Codes after one more byte each: shape (n,) states, (n,) bytes -> (n,) int32."""
        found = self._next[states, bytes_]
        new = np.unique(states[found == _UNKNOWN] * 256 + bytes_[found == _UNKNOWN])
        for state, byte in zip(*(half.tolist() for half in np.divmod(new, 256)), strict=True):
            code = self._read_byte(state, byte)  # first: it may add states, which may move the array
            self._next[state, byte] = code
        return self._next[states, bytes_]

    def end(self, state: int) -> int:
        """The code when the answer ends here; an unfinished character has become U+FFFD."""
        text, pending = self.states[state]
        for char in pending.decode("utf-8", "replace"):
            text = self._read_char(text, char)
            if isinstance(text, int):
                return text
        return self._verdict(text)

    def reachable(self, state: int) -> np.ndarray:
        """Which options a continuation may still decide for: shape (options,), bool; never too few. Do not write into it."""
        text = self.states[state][0]
        if text not in self._reachable:  # compares every spelling: uncached, it took most of a walk over 100 options
            out = self._reachable[text] = np.zeros(len(self.task.options), bool)
            out[[-2 - code for s, code in self.codes.items() if s.startswith(text) or text.startswith(s)]] = True
        return self._reachable[text]

    def _read_byte(self, state: int, byte: int) -> int:
        text, pending = self.states[state]
        chars, pending = self._decoded(pending, byte)
        for char in chars:
            text = self._outcome(text, char)
            if isinstance(text, int):
                return text
        return self._settle(text, pending)

    def follow(self, state: int, text: bytes) -> int:
        """The code after these bytes: a state, or what they decide."""
        for byte in text:
            if state < 0:
                break
            state = int(self.step(np.array([state]), np.array([byte]))[0])
        return state

    def within(self, state: int, pending: bytes) -> int:
        """The code after the first bytes of a character, from a state that is within none."""
        return self._settle(self.states[state][0], pending)

    def by_kind(self, state: int, lead: int) -> tuple[int, int] | None:
        """What a letter or digit, and any other character, decides, where `lead` is the first byte
        of a character beyond ASCII and nothing but its kind matters; else None.
        """
        text, pending = self.states[state]
        if pending or lead in self._wide_leads:
            return None
        outcomes = tuple(self._outcome(text, char) for char in self._generic[:2])
        return outcomes if all(isinstance(one, int) for one in outcomes) else None

    def _decoded(self, pending: bytes, byte: int) -> tuple[list[str], bytes]:
        """The characters that a byte completes, and what is unfinished then.

        A character that no spelling, joiner or LEAD holds stands for all of its kind, so that few
        outcomes are ever computed.
        """
        if (pending, byte) not in self._spelt:
            self._decoder.setstate((pending, 0))
            chars = [c if c.isascii() or c in self._wide else self._generic[not c.isalnum()]
                     for c in self._decoder.decode(bytes([byte]))]
            self._spelt[pending, byte] = chars, self._decoder.getstate()[0]
        return self._spelt[pending, byte]

    def _outcome(self, text: str, char: str) -> str | int:
        """`_read_char`, once for each."""
        if (text, char) not in self._outcomes:
            self._outcomes[text, char] = self._read_char(text, char)
        return self._outcomes[text, char]

    def _settle(self, text: str, pending: bytes) -> int:
        """Number the state, unless whatever the unfinished character turns out to be decides the same."""
        if pending:
            if pending not in self._possible:
                wide = [c for c in self._wide if c.encode().startswith(pending)]
                self._possible[pending] = self._generic + wide
            outcomes = {self._outcome(text, char) for char in self._possible[pending]}
            if len(outcomes) == 1 and isinstance(only := outcomes.pop(), int):
                return only
        key = (text, pending)
        if key not in self._index:
            self._index[key] = len(self.states)
            self.states.append(key)
            if len(self.states) > len(self._next):
                self._next = np.concatenate([self._next, np.full_like(self._next, _UNKNOWN)])
        return self._index[key]

    def _read_char(self, text: str, char: str) -> str | int:
        """The text that is still open, or the code of the decision."""
        if not text and char in LEAD:
            return ""
        text += char.lower() if char.isascii() else char
        if text in self.prefixes or (text[:-1] in self.codes and _may_join(text[-2], text[-1])):
            return text
        return self._verdict(text)

    def _verdict(self, text: str) -> int:
        """The longest spelling that starts `text` and ends at a boundary."""
        for n in range(len(text), 0, -1):
            after, then = text[n : n + 1], text[n + 1 : n + 2]
            joined = _may_join(text[n - 1], after) and (_digit(then) if after in DIGIT_JOINERS else then.isalnum())
            if text[:n] in self.codes and not after.isalnum() and not joined:
                return self.codes[text[:n]]
        return OFF


def _digit(char: str) -> bool:
    return char.isascii() and char.isdigit()


def _may_join(before: str, char: str) -> bool:
    """Whether `char` can join `before`, the last character of a spelling, with a character to come."""
    return char != "" and (char in JOINERS or (char in DIGIT_JOINERS and _digit(before)))


@dataclass(frozen=True)
class Row:
    """One state's tokens, as ranks in `Vocabulary.order`; the two halves together hold every token exactly once."""

    live: np.ndarray  # (a,) ranks that leave the answer open
    to: np.ndarray  # (a,) the states they lead to
    low: np.ndarray  # (r,) ranges low .. high of ranks that decide
    high: np.ndarray
    code: np.ndarray  # (r,) what each range decides

    @cached_property
    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """First ranks, ascending, and codes (a + r,): a rank's code is that of the last first rank not above it."""
        begin = np.concatenate([self.live, self.low])
        order = np.argsort(begin)
        return begin[order], np.concatenate([self.to, self.code])[order]


@dataclass
class Table:
    """What every token does in every state of a task; rows are made when a walk first meets a state."""

    vocabulary: Vocabulary
    automaton: Automaton

    @cached_property
    def rows(self) -> dict[int, Row]:
        return {}

    def row(self, state: int) -> Row:
        if state not in self.rows:
            self.rows[state] = self._push(state)
        return self.rows[state]

    def follow(self, states: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """Codes that tokens of these ranks lead to from these states: (n,), (n,) -> (n,)."""
        found, which = np.unique(states, return_inverse=True)
        rows = [self.row(state) for state in found.tolist()]
        begin = np.concatenate([row.steps[0] + i * len(self.vocabulary.order) for i, row in enumerate(rows)])
        at = np.searchsorted(begin, which * len(self.vocabulary.order) + ranks, side="right") - 1
        return np.concatenate([row.steps[1] for row in rows])[at]

    def _push(self, state: int) -> Row:
        """Walk the vocabulary's trie from `state`; a subtree whose beginning decides is one range."""
        seen = [np.stack(found) for found in self._visit(state)]
        low, high, code = np.concatenate([self._specials(state), *seen], axis=1)
        live, to = _each(low[code >= 0], high[code >= 0], code[code >= 0])
        low, high, code = _merged(np.stack([low, high, code])[:, code < 0])
        counted = len(live) + int((high - low).sum())
        assert counted == len(self.vocabulary.order), "a token is counted twice or not at all"
        return Row(live, to, low, high, code)

    def _visit(self, state: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(low, high, code): texts that end at a visited node, then whole subtrees that are decided."""
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
        """Nodes (n,) that begin a character of which only the kind matters: decided at once.

        Returns ranges as `_visit` gives them, and the nodes and states that are left.
        """
        byte, ranges, odd, done = self.vocabulary.byte[nodes], [], [], []
        for i in np.flatnonzero((byte >= 0xC2) & (byte <= 0xF4)).tolist():
            state = int(states[i])
            if not (outcomes := self.automaton.by_kind(state, int(byte[i]))):
                continue
            done.append(i)
            found = self.vocabulary.characters(int(nodes[i]))
            ranges.append((found.low, found.high, np.where(found.word, *outcomes)))
            for low, own, text in found.unfinished:
                code = self.automaton.within(state, text)
                ranges.append(tuple(np.array([x]) for x in (low, own, code)))
            for node, text in found.invalid:
                code = self.automaton.within(state, text[:-1])
                if code >= 0:
                    odd.append((node, code))
                else:
                    whole = self.vocabulary.low[node], self.vocabulary.high[node], code
                    ranges.append(tuple(np.array([x]) for x in whole))
        more = np.array(odd, np.int64).reshape(-1, 2)
        return (ranges, np.append(np.delete(nodes, done), more[:, 0]),
                np.append(np.delete(states, done), more[:, 1]))

    def _specials(self, state: int) -> np.ndarray:
        vocab = self.vocabulary
        return np.array([[vocab.texts, vocab.ends], [vocab.ends, len(vocab.order)], [self.automaton.end(state), OFF]])


def spans(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start[0], start[0]+1, ... count[0] of them, then from start[1], ..."""
    begin = np.cumsum(count) - count
    return np.repeat(start - begin, count) + np.arange(int(count.sum()))


def _each(low: np.ndarray, high: np.ndarray, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every rank of the ranges (n,), ascending, and its code."""
    ranks, codes = spans(low, high - low), np.repeat(code, high - low)
    order = np.argsort(ranks)
    return ranks[order], codes[order]


def _merged(ranges: np.ndarray) -> np.ndarray:
    """Ranges (3, n) of low, high, code: empty ones dropped, neighbours with one code joined."""
    ranges = ranges[:, ranges[0] < ranges[1]]
    ranges = ranges[:, np.argsort(ranges[0])].astype(np.int64)
    low, high, code = ranges
    first = np.concatenate([[True], (low[1:] != high[:-1]) | (code[1:] != code[:-1])])[: len(low)]
    last = np.concatenate([first[1:], [True]])[: len(low)]
    return np.stack([low[first], high[last], code[first]])
