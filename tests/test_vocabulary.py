"""The bytes of every token: what its tokenizer decodes in context, or a refusal."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from crystal.errors import CrystalError
from crystal.read.vocabulary import (
    ALPHABET,
    END,
    VOID,
    token_pieces,
)

SPACE = "\u2581"
BYTES = [f"<0x{b:02X}>" for b in range(256)]
LLAMA = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
LETTERS = {byte: char for char, byte in ALPHABET.items()}


def wrapped(
    names: list[str], decoder, added: tuple[str, ...] = (), **flags
) -> PreTrainedTokenizerFast:
    """A vocabulary of `</s>` and these names; added: plain text that is not special."""
    vocab = {name: i for i, name in enumerate(["</s>", *names])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="</s>"))
    backend.decoder = decoder
    backend.add_tokens([AddedToken(text, special=False, **flags) for text in added])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def pieces(tokenizer: PreTrainedTokenizerFast, width: int | None = None) -> list[object]:
    return [*token_pieces(tokenizer, {0}, width or len(tokenizer))]


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"normalized": True},
        {"lstrip": True},
        {"rstrip": True},
        {"single_word": True},
    ],
    ids=str,
)
def test_added_spaces_are_spaces(flags: dict) -> None:
    """As in Gemma: runs of spaces are added tokens, spelled with the mark of SentencePiece."""
    tokenizer = wrapped(
        [*BYTES, SPACE, "x"], decoders.Sequence(LLAMA), (SPACE * 2, f"{SPACE}so{SPACE}"), **flags
    )
    assert pieces(tokenizer)[-2:] == [b"  ", b" so "]


def test_added_tokens_are_text_unless_all_letters_are_bytes() -> None:
    added = ("<tool call>", "  ", "中文", "<|user|>", "caf\u00e9", "\u0120x")
    tokenizer = wrapped([*LETTERS.values()], decoders.ByteLevel(), added)
    assert pieces(tokenizer)[-6:] == [
        b"<tool call>",
        b"  ",
        "中文".encode(),
        b"<|user|>",
        b"caf\xe9",
        b" x",
    ]


def test_halves_of_characters() -> None:
    halves = [
        b"\xe4\xb8",
        b"\xad\xe6",
        b"\x87a",
        b"x\xf0\x9f",
        b"\x98\x80y",
        b"\xff\xfe",
        b"\x80\x80\x80\x80",
    ]
    names = ["".join(LETTERS[b] for b in half) for half in halves]
    assert pieces(wrapped([*LETTERS.values(), *names], decoders.ByteLevel()))[-7:] == halves
    assert pieces(wrapped([*BYTES, "x"], decoders.Sequence(LLAMA)))[1:257] == [
        bytes([b]) for b in range(256)
    ]


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_the_space_that_begins_a_text_is_a_tokens_own(scheme: str) -> None:
    tokenizer = wrapped(
        [f"{SPACE}7", "7", "x", "<0x41>"], decoders.Metaspace(prepend_scheme=scheme)
    )
    assert pieces(tokenizer)[1:] == [
        b" 7",
        b"7",
        b"x",
        b"<0x41>",
    ]  # no byte fall-back: the name is the text


def test_a_decoder_that_strips_every_token_is_believed() -> None:
    tokenizer = wrapped(
        [f"{SPACE}7", "7", "x", "y"], decoders.Sequence([*LLAMA[:2], decoders.Strip(" ", 1, 0)])
    )
    assert pieces(tokenizer)[1:] == [b"7", b"7", b"x", b"y"]


def test_a_decoder_that_rewrites_some_tokens_is_believed() -> None:
    rewrites = decoders.Sequence([decoders.Replace("q", "7"), *LLAMA])
    assert pieces(wrapped(["q", "x", "y"], rewrites))[1:] == [b"7", b"x", b"y"]


@pytest.mark.parametrize(
    "decoder",
    [
        decoders.Sequence([*LLAMA, decoders.Replace(Regex("[a-z]7"), "9")]),
        decoders.Sequence([*LLAMA[:2], decoders.WordPiece()]),
        decoders.Sequence([*LLAMA[:2], decoders.CTC(pad_token="x")]),
    ],
    ids=["rewrites pairs", "puts spaces between", "drops repetitions"],
)
def test_decoding_that_depends_on_neighbours_is_refused(decoder) -> None:
    with pytest.raises(
        CrystalError, match="depends on the tokens beside it|no token .* so none can be checked"
    ):
        pieces(wrapped(["7", "x", "y"], decoder))


def test_nothing_to_compare_with_is_refused() -> None:
    with pytest.raises(CrystalError, match="no token .* plain letters"):
        pieces(wrapped([SPACE, "中"], decoders.Sequence(LLAMA)))


def test_ids_without_a_token_and_tokens_without_a_place() -> None:
    tokenizer = wrapped(["x", "7"], decoders.Sequence(LLAMA))
    assert pieces(tokenizer, 5) == [END, b"x", b"7", VOID, VOID] and pieces(tokenizer, 2) == [
        END,
        b"x",
    ]
