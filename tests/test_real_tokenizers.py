"""Tokenizers of real models: every token's bytes, and read-outs and draws on tiny models of their
architecture.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from distributions import chi_square_p
from real_tokenizers import REAL, folder_of

from crystal.ask.sources import PROBES, tokenizer_at
from crystal.ask.tasks import TASKS, read
from crystal.errors import CrystalError
from crystal.read.engine import Engine, build
from crystal.read.readout import readout
from crystal.read.sampling import draw

TASK = TASKS["digit"]
ROUNDED = 64  # ids that the output layer has beyond the tokenizer's, at most


@pytest.fixture(scope="module", params=[*REAL])
def engine(request: pytest.FixtureRequest) -> Engine:
    """A tiny random model around a real tokenizer, likely to say a digit, a space or its end."""
    folder = folder_of(request.param)
    tokenizer, _ = tokenizer_at(str(folder), "main")
    width = math.ceil(len(tokenizer) / ROUNDED) * ROUNDED
    real = REAL[request.param]
    model = tiny.model(
        real.kind,
        width,
        sharpness=1.0,
        **{"num_hidden_layers": 1 if real.kind != "deepseek_v3" else 2, **real.config},
    )
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    out = build(model, tokenizer, source=str(folder))
    bias = torch.zeros(width)
    said = [
        i
        for i, piece in enumerate(out.pieces)
        if isinstance(piece, bytes) and re.fullmatch(rb" ?[0-9]?|\n", piece)
    ]
    bias[[*said, tokenizer.eos_token_id]] = math.log(width / len(said)) + 3
    model.get_output_embeddings().bias = torch.nn.Parameter(bias)
    return out


def by_the_file(engine: Engine) -> dict[int, bytes]:
    """Id -> bytes, worked out from tokenizer.json alone, by the two published rules; special tokens
    left out.
    """
    file = json.loads((Path(engine.source) / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"]: token for token in file["added_tokens"]}
    tokens = {i: text for text, i in file["model"]["vocab"].items()} | {
        i: token["content"] for i, token in added.items()
    }
    tokens = {i: text for i, text in tokens.items() if not (i in added and added[i]["special"])}
    if "ByteLevel" in json.dumps(file["decoder"] or file["pre_tokenizer"]):
        table = gpt2_bytes()
        return {
            i: text.encode() if i in added else bytes(table[c] for c in text)
            for i, text in tokens.items()
        }
    hexa = re.compile("<0x(..)>")
    return {
        i: bytes.fromhex(byte[1])
        if (byte := hexa.fullmatch(text))
        else text.replace("\u2581", " ").encode()
        for i, text in tokens.items()
    }


def gpt2_bytes() -> dict[str, int]:
    """`bytes_to_unicode` of GPT-2's encoder.py, inverted."""
    bs = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    cs, n = bs[:], 0
    for b in range(256):
        if b not in bs:
            bs.append(b)
            cs.append(256 + n)
            n += 1
    return {chr(c): b for b, c in zip(bs, cs, strict=True)}


def test_every_token_is_its_bytes(engine: Engine) -> None:
    wanted, ends = by_the_file(engine), set(engine.tokenizer.all_special_ids)
    wrong = {
        i: (engine.pieces[i], piece)
        for i, piece in wanted.items()
        if i not in ends and engine.pieces[i] != piece
    }
    assert wrong == {} and len(wanted) > 30_000
    texts = sum(isinstance(piece, bytes) for piece in engine.pieces)
    assert len(wanted) - len(ends) <= texts <= len(wanted)


def test_the_bytes_of_a_text_are_the_texts(engine: Engine) -> None:
    for text in PROBES:
        ids = engine.tokenizer(text, add_special_tokens=False)["input_ids"]
        said = b"".join(engine.pieces[i] for i in ids).decode()
        same = {form(text) for form in (str, lambda t: unicodedata.normalize("NFC", t))}
        assert (
            said in same or said.removeprefix(" ") in same or "\u2581" in text
        )  # SentencePiece begins with a space


def test_a_prompt_is_asked_in_either_form(engine: Engine) -> None:
    ids = engine.encode("A random digit:", "completion", "It is")
    assert (
        b"".join(p for i in ids if isinstance(p := engine.pieces[i], bytes)).strip()
        == b"A random digit: It is"
    )
    try:
        ids = engine.encode("A random digit?", "chat", "It is")
    except CrystalError as error:
        assert "no chat template" in str(error)
        return
    said = b"".join(p for i in ids if isinstance(p := engine.pieces[i], bytes))
    assert b"A random digit?" in said and said.endswith(b"It is")


def test_a_read_out_sums_to_1_and_is_the_distribution_of_draws(engine: Engine) -> None:
    """Chi-square over digits and everything else; false alarm probability 1e-4 each."""
    ids, n = engine.encode("A random digit:", "completion"), 3000
    distribution = readout(engine, [ids], TASK, tolerance=1e-3, max_depth=6)[0]
    assert abs(distribution.options.sum() + distribution.invalid + distribution.residual - 1) < 1e-6
    assert distribution.options.sum() > 0.1 and distribution.residual <= 0.02, (
        "a test of almost nothing"
    )
    texts = draw(engine, ids, n, seed=3, max_tokens=6, task=TASK)
    seen = dict.fromkeys([*TASK.options, "other"], 0)
    for text, count in texts.items():
        seen[read(text, TASK) or "other"] += count
    expected = dict(zip(TASK.options, distribution.options, strict=True))
    assert chi_square_p(seen, expected | {"other": 1 - float(np.sum(distribution.options))}) > 1e-4
