"""A model is read through the fast tree where it proves that it can; else whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tiny
import torch

from crystal.read import engine as engines
from crystal.read.engine import Engine, build
from crystal.read.readout import readout
from crystal.read.tree import RaggedTree, WholeTree

PROMPTS = [(0, 2, 3), (0, 5, 6, 7, 8), (0, 5, 6, 9), (0, 4)]
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 2,
}
HYBRID = {"layer_types": ["conv", "full_attention"]}
FAST = {
    "llama": {},
    "mistral": {},
    "mixtral": {},
    "qwen2": {},
    "qwen3": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "gpt2": {},
    "gpt_neox": {},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {},
    "phi3": {},
    "smollm3": {},
    "gpt_oss": ROPE,
    "opt": {},
    "deepseek_v3": LATENT,
}
WHOLE = {"mamba": {}, "rwkv": {}, "bloom": {}, "lfm2": HYBRID}


def engine_of(kind: str, dtype: torch.dtype = torch.float32, **more) -> Engine:
    tokenizer = tiny.hand_tokenizer()
    return build(tiny.model(kind, len(tokenizer), **more).to(dtype), tokenizer)


@pytest.mark.parametrize("kind", [*FAST, *WHOLE])
def test_every_architecture_is_read_as_whole_sequences_are(kind: str) -> None:
    engine = engine_of(kind, **(FAST | WHOLE)[kind])
    assert engine.ragged == (kind in FAST)
    assert isinstance(engine.tree(PROMPTS, 2), RaggedTree if kind in FAST else WholeTree)
    fast = readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=1e-2)
    engine.ragged = False
    for a, b in zip(fast, readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=1e-2), strict=True):
        assert np.abs(a.options - b.options).max() < 1e-6 and a.options.sum() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "mamba"])
def test_the_proof_holds_in_every_precision(kind: str, dtype: torch.dtype) -> None:
    engine = engine_of(kind, dtype)
    assert engine.ragged == (kind in FAST) and engine.computed == 0 and engine.model.dtype == dtype


def _visible(mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spread", [0.3, 0.02])
@pytest.mark.parametrize(
    ("part", "harm"),
    [
        ("mask", _visible),
        ("path", torch.zeros_like),
        ("path", lambda path: path.flip(0)),
    ],
    ids=["padding is seen", "wrong ancestors", "another's ancestors"],
)
def test_a_wrong_tree_proves_nothing(
    part: str,
    harm: Callable,
    spread: float,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true_chunk = RaggedTree._chunk

    def chunk(self, *asked):
        out = true_chunk(self, *asked)
        setattr(out, part, harm(getattr(out, part)))
        return out

    monkeypatch.setattr(RaggedTree, "_chunk", chunk)
    assert not engine_of("llama", dtype, initializer_range=spread).ragged


def test_no_room_is_no_proof() -> None:
    assert not engine_of("olmo3", sliding_window=4).ragged


def test_a_sequence_beyond_the_window_goes_the_whole_way() -> None:
    engine = engine_of("mistral", sliding_window=12)
    assert engine.ragged and engine.window == 12
    assert isinstance(engine.tree([(0,) * 9], 3), RaggedTree) and isinstance(
        engine.tree([(0,) * 9], 4), WholeTree
    )


def test_want_of_memory_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_) -> None:
        raise MemoryError

    engine = engine_of("llama")
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(engines, "_grown", full)
        _ = engine.ragged
    assert engine.ragged


def test_a_proof_is_asked_once_for_each_code(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("CRYSTAL_CACHE", str(tmp_path))
    monkeypatch.setattr(engines, "LARGE", 0)
    asked = []
    monkeypatch.setattr(engines, "ragged_agrees", lambda *_: asked.append(1) or True)
    assert engine_of("llama").ragged and engine_of("llama").ragged and len(asked) == 1
    monkeypatch.setattr(engines, "version", lambda _: "another")
    assert engine_of("llama").ragged and len(asked) == 2
