"""The bytes of every token, as its tokenizer decodes it behind and before other tokens.

Guessed from the vocabulary's own strings, as `decode([i])` loses leading spaces and halves of
characters; then compared, for every id, with what the tokenizer decodes *in context*. Where they
differ, decoding is right; where decoding depends on what stands beside a token, there are no bytes
to read, and the tokenizer is refused.
"""

from __future__ import annotations

import itertools
import pickle
import re
from collections.abc import Callable
from importlib.metadata import version

import numpy as np

from ..errors import CrystalError
from .vocabulary import END, VOID, Pieces, Vocabulary, kept

CHAIN = 32  # tokens in a row, in which each must decode to its own bytes
_SUFFIXES = [
    bytes(more) for n in (1, 2, 3) for more in itertools.product(b"\x80\x90\xa0", repeat=n)
]
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
_MEND = "choose a model with a byte-level BPE or SentencePiece tokenizer"


def _alphabet() -> dict[str, int]:
    """The byte-level alphabet: printable bytes stand for themselves, the rest are moved to U+0100
    and on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(moved)}


ALPHABET = _alphabet()


def vocabulary_of(tokenizer, ends: set[int], width: int) -> Vocabulary:
    """The vocabulary of a tokenizer, its bytes checked; from the cache where it was met before.

    ends: ids after which there is no more answer. width: ids of the output layer.
    Raises: CrystalError as `token_pieces` does.
    """
    rests_on = [
        tokenizer.backend_tokenizer.to_str(),
        str(sorted(ends)),
        str(width),
        version("tokenizers"),
    ]
    return kept(rests_on, width, lambda: Vocabulary(token_pieces(tokenizer, ends, width)))


def token_pieces(tokenizer, ends: set[int], width: int) -> Pieces:
    """The bytes of every id up to `width`, END for the ids in `ends`, VOID for ids that are no
    token.

    Raises: CrystalError for a vocabulary that is neither byte-level nor SentencePiece, or whose
    tokens do not decode to bytes of their own.
    """
    spell, pieces = _rule(tokenizer), [VOID] * width
    for text, i in tokenizer.get_vocab().items():
        if i < width:
            pieces[i] = END if i in ends else spell(text)
    return Pieces.of(_InContext(tokenizer, pieces).mended())


def _rule(tokenizer) -> Callable[[str], bytes]:
    """How the decoder spells a token, whether it was added or not."""
    decoder = pickle.dumps(tokenizer.backend_tokenizer.decoder).decode(
        "utf-8", "replace"
    )  # holds its description as JSON
    kinds = set(re.findall(r'"type": ?"(\w+)"', decoder))
    if "ByteLevel" in kinds:
        return _byte_level
    if kinds & {"ByteFallback", "Metaspace"}:
        return _sentencepiece if "ByteFallback" in kinds else _spaced
    found = ", ".join(sorted(kinds)) or "none"
    raise CrystalError(
        f"the tokenizer is neither byte-level nor SentencePiece (decoder: {found})",
        where=tokenizer.name_or_path,
        mend=_MEND,
    )


def _byte_level(text: str) -> bytes:
    """Letters of the alphabet are bytes; a token with any other character is plain text."""
    found = [ALPHABET.get(c) for c in text]
    return text.encode() if None in found else bytes(found)


def _sentencepiece(text: str) -> bytes:
    return bytes([int(text[3:5], 16)]) if _BYTE.fullmatch(text) else _spaced(text)


def _spaced(text: str) -> bytes:
    return text.replace("\u2581", " ").encode()


class _InContext:
    """Pieces against their tokenizer's decoding."""

    def __init__(self, tokenizer, pieces: list[object]) -> None:
        self.tokenizer, self.pieces = tokenizer, pieces
        self.texts = [i for i, piece in enumerate(pieces) if isinstance(piece, bytes)]
        self.byte = {pieces[i]: i for i in reversed(self.texts) if len(pieces[i]) == 1}

    def mended(self) -> list[object]:
        """The pieces, those that decode to something else replaced by that."""
        if self.texts:
            self.anchor, self.other = self._anchors()
            suspects = self._wrong(self._chains()) + self._wrong(self._completed())
            alone = [
                [self.anchor, i, self.anchor] for i in sorted({i for row in suspects for i in row})
            ]
            for _, i, _ in self._wrong(alone):
                self.pieces[i] = self._decoded(i)
            for row in self._wrong(suspects):
                self._refuse(next(i for n, i in enumerate(row, 1) if self._wrong([row[:n]])))
        return self.pieces

    def decode(self, rows: list[list[int]]) -> list[str]:
        return self.tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=False)

    def _text(self, ids: list[int]) -> str:
        return b"".join([self.pieces[i] for i in ids]).decode("utf-8", "replace")

    def _wrong(self, rows: list[list[int]]) -> list[list[int]]:
        """Rows that do not decode to the bytes of their tokens."""
        return [
            ids
            for ids, text in zip(rows, self.decode(rows), strict=True)
            if text != self._text(ids)
        ]

    def _anchors(self) -> tuple[int, int]:
        """Tokens of plain letters, to stand beside others: two where there are two."""
        name, ascii_ = self.tokenizer.convert_ids_to_tokens, re.compile(rb"[!-~]{1,8}")
        plain = [i for i in self.texts if ascii_.fullmatch(self.pieces[i])]
        plain.sort(key=lambda i: (not self.pieces[i].isalpha(), len(self.pieces[i]), i))
        named = (
            i
            for i in plain[:256]
            if name(i).encode() == self.pieces[i] and not self._wrong([[i, i]])
        )
        if (first := next(named, None)) is None:
            raise CrystalError(
                "no token decodes to plain letters wherever it stands, so none can be checked",
                where=self.tokenizer.name_or_path,
                mend=_MEND,
            )
        return first, next(named, first)

    def _chains(self) -> list[list[int]]:
        """Every token of whole characters, in rows of many, in an order drawn once."""
        whole = np.array([i for i in self.texts if _whole(self.pieces[i])])
        drawn = np.random.Generator(np.random.Philox(0)).permutation(whole).tolist()
        return [[self.anchor, *drawn[at : at + CHAIN]] for at in range(0, len(drawn), CHAIN)]

    def _completed(self) -> list[list[int]]:
        """Every other token, among tokens of single bytes that make whole characters of it, where
        there are.
        """
        rows = []
        for i in (i for i in self.texts if not _whole(self.pieces[i])):
            before, after = (
                [self.byte.get(bytes([b])) for b in half] for half in _completion(self.pieces[i])
            )
            row = [self.anchor, *before, i, *after, self.anchor]
            rows.append([self.anchor, i, self.anchor] if None in row else row)
        return rows

    def _decoded(self, i: int) -> bytes:
        """What a token decodes to, if it is the same beside each anchor and itself, and holds whole
        characters.
        """
        found = {
            self._between([a, i, b])
            for a in (self.anchor, self.other)
            for b in (self.anchor, self.other)
        }
        text = found.pop() if len(found) == 1 else None
        if (
            text is None
            or "\ufffd" in text
            or self._between([self.anchor, i, i, self.other]) != text * 2
        ):
            self._refuse(i)
        return text.encode()

    def _between(self, ids: list[int]) -> str | None:
        """What is decoded between the first and last token; None where these are not themselves any
        more.
        """
        text, first, last = self.decode([ids])[0], self._text(ids[:1]), self._text(ids[-1:])
        whole = (
            text.startswith(first) and text.endswith(last) and len(text) >= len(first) + len(last)
        )
        return text[len(first) : len(text) - len(last)] if whole else None

    def _refuse(self, i: int) -> None:
        token = self.tokenizer.convert_ids_to_tokens(i)
        raise CrystalError(
            f"what token {i} ({token!r}) decodes to depends on the tokens beside it",
            where=self.tokenizer.name_or_path,
            mend=_MEND,
        )


def _whole(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def _completion(piece: bytes) -> tuple[bytes, bytes]:
    """Bytes before and after which make whole characters of a piece that begins or ends within one;
    else none.
    """
    if _whole(piece):
        return b"", b""
    lost = len(piece) - len(piece.lstrip(bytes(range(0x80, 0xC0))))
    before = {0: b"", 1: b"\xc3", 2: b"\xe1", 3: b"\xf1"}.get(lost, b"")
    return next(
        ((before, after) for after in (b"", *_SUFFIXES) if _whole(before + piece + after)),
        (b"", b""),
    )
